/** What all the faults came to, one line each. */
import { latestResumption, mostGrown } from "./Campaign.ts"
import type { Outcome } from "./Campaign.ts"

const mebi = 1024 * 1024

/** Rows of the same fault and store made one. */
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

/** The table, and below it what was wrong beside losses and doubles. */
export const tableOf = (outcomes: ReadonlyArray<Outcome>): string => {
  const rows = [titles, ...outcomes.map(cells)]
  const widths = titles.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  const lines = rows.map((row) =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "),
  )
  const rule = widths.map((width) => "-".repeat(width)).join("  ")
  const told = (which: "problems" | "notes") =>
    outcomes.flatMap((outcome) => outcome[which].map((text) => `${outcome.fault} (${outcome.kind}): ${text}`))
  return [
    lines[0],
    rule,
    ...lines.slice(1),
    "",
    `resumed: from the moment when a store that was away answers to the first move that it takes; up to ${latestResumption / 1000} s is right`,
    `memory: the most that a service held more than when it was warm, without garbage; up to ${mostGrown} MiB is flat`,
    "epochs: new ones; exactly one where the store was set back, or was emptied, and none else",
    ...told("notes"),
    ...told("problems"),
  ].join("\n")
}

export const isClean = ({ lost, doubled, problems }: Outcome) => lost + doubled + problems.length === 0
