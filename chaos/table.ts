/** Formats the outcomes of all faults, one line each. */
import { latestResumption, mostGrown } from "./FaultPlan.ts"
import type { Outcome } from "./FaultPlan.ts"

const mebi = 1024 * 1024

/** Merges the rows of the same fault and store. */
export const gathered = (outcomes: ReadonlyArray<Outcome>): ReadonlyArray<Outcome> => {
  const rows = new Map<string, Outcome>()
  for (const one of outcomes) {
    const key = `${one.fault}/${one.kind}`
    const row = rows.get(key)
    rows.set(
      key,
      row === undefined
        ? one
        : {
            ...one,
            times: row.times + one.times,
            lost: row.lost + one.lost,
            doubled: row.doubled + one.doubled,
            recoveries: [...row.recoveries, ...one.recoveries],
            resumptions: [...row.resumptions, ...one.resumptions],
            problems: [...row.problems, ...one.problems],
            notes: [...row.notes, ...one.notes],
            epochs: row.epochs + one.epochs,
            grown: Math.max(row.grown, one.grown),
          },
    )
  }
  return [...rows.values()].sort((a, b) => a.fault.localeCompare(b.fault) || a.kind.localeCompare(b.kind))
}

const seconds = (millis: number | undefined) =>
  millis === undefined ? "-" : `${(millis / 1000).toFixed(1)} s`

const medianAndMost = (millis: ReadonlyArray<number>) => {
  const sorted = millis.toSorted((a, b) => a - b)
  return [seconds(sorted[Math.floor(sorted.length / 2)]), seconds(sorted.at(-1))]
}

const cells = (outcome: Outcome) => {
  const { fault, kind, times, lost, doubled, problems, epochs, recoveries, resumptions, grown } = outcome
  return [
    fault,
    kind,
    String(times),
    String(lost),
    String(doubled),
    String(problems.length),
    String(epochs),
    ...medianAndMost(recoveries),
    ...medianAndMost(resumptions),
    `${grown >= 0 ? "+" : ""}${Math.round(grown / mebi)} MiB`,
  ]
}

const titles = "fault,store,times,lost,doubled,other,epochs,recovery p50,max,resumed p50,max,memory".split(
  ",",
)

/** The table, and below it all notes and problems. */
export const tableOf = (outcomes: ReadonlyArray<Outcome>): string => {
  const rows = [titles, ...outcomes.map(cells)]
  const widths = titles.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  const lines = rows.map((row) =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "),
  )
  const rule = widths.map((width) => "-".repeat(width)).join("  ")
  const linesOf = (which: "problems" | "notes") =>
    outcomes.flatMap((outcome) => outcome[which].map((text) => `${outcome.fault} (${outcome.kind}): ${text}`))
  return [
    lines[0],
    rule,
    ...lines.slice(1),
    "",
    `resumed: from the store answering again to the first accepted move; the limit is ${latestResumption / 1000} s`,
    `memory: the largest growth of a warm service, without garbage; the limit is ${mostGrown} MiB`,
    "epochs: new ones; exactly one after the store was set back or emptied, otherwise none",
    ...linesOf("notes"),
    ...linesOf("problems"),
  ].join("\n")
}

export const isClean = ({ lost, doubled, problems }: Outcome) => lost + doubled + problems.length === 0
