/** One line per chain: redrawn in place on a terminal, otherwise printed every 5 s. */
import { Effect } from "effect"
import { style, writeLines } from "./Output.ts"
import { eventsPublished } from "../observability/ChainMetrics.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import { breakerLabel } from "../Retry.ts"

const columns: ReadonlyArray<readonly [title: string, width: number]> = [
  ["chain", -10],
  ["state", -12],
  ["head", 7],
  ["stored", 7],
  ["logs", 9],
  ["logs/s", 7],
  ["latency", 9],
  ["reorgs", 7],
  ["breaker", -8],
]

const pad = (text: string, width: number) => (width < 0 ? text.padEnd(-width) : text.padStart(width))

const row = (cells: ReadonlyArray<string>) =>
  columns
    .map(([, width], i) => pad(cells[i]!, width))
    .join("  ")
    .trimEnd()

const cells = (chain: ChainStatus): ReadonlyArray<string> => {
  const latency = chain.latencies.quantile(0.5)
  return [
    chain.name,
    chain.phase.replace("-", " "),
    String(chain.head ?? "-"),
    String(chain.stored ?? "-"),
    String(chain.count(eventsPublished)),
    chain.history.perSecond.toFixed(0),
    latency === undefined ? "-" : `${latency.toFixed(0)} ms`,
    chain.reorgs === 0 ? "0" : `${chain.reorgs} (≤${chain.deepestReorg})`,
    breakerLabel(chain.breakerState),
  ]
}

const plain = (chain: ChainStatus): string =>
  cells(chain)
    .map((cell, i) => (i === 0 ? cell : `${columns[i]![0]} ${cell}`))
    .join("  ")

/** Draws until interrupted, and leaves the last state on the screen. */
export const show = (chains: ReadonlyArray<ChainStatus>): Effect.Effect<never> => {
  if (!process.stdout.isTTY)
    return Effect.forever(
      Effect.delay(
        Effect.suspend(() => writeLines(chains.map(plain))),
        "5 seconds",
      ),
    )
  let drawn = 0
  const draw = Effect.sync(() => {
    const lines = [
      style(2, row(columns.map(([title]) => title))),
      ...chains.map((chain) => {
        const line = row(cells(chain))
        return chain.phase === "live" ? line : style(33, line)
      }),
    ]
    const up = drawn === 0 ? "" : `\u001b[${drawn}A`
    process.stdout.write(up + lines.map((line) => `\u001b[2K${line}\n`).join(""))
    drawn = lines.length
  })
  return Effect.forever(Effect.andThen(draw, Effect.sleep("250 millis")))
}
