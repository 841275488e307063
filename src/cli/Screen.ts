/** One line per chain: redrawn in place on a terminal, otherwise printed every 5 s. */
import { Effect } from "effect"
import { eventsPublished } from "../observability/ChainMetrics.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import { breakerLabel } from "../Retry.ts"
import { InPlace } from "./InPlace.ts"
import { canRedraw, writeLines } from "./Output.ts"
import { table } from "./Table.ts"
import type { Column } from "./Table.ts"

const columns: ReadonlyArray<Column> = [
  { title: "chain", width: 10 },
  { title: "state", width: 12 },
  { title: "head", width: 7, isNumber: true },
  { title: "stored", width: 7, isNumber: true },
  { title: "logs", width: 9, isNumber: true },
  { title: "logs/s", width: 7, isNumber: true },
  { title: "latency", width: 9, isNumber: true },
  { title: "reorgs", width: 7, isNumber: true },
  { title: "breaker" },
]

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
    .map((cell, i) => (i === 0 ? cell : `${columns[i]!.title} ${cell}`))
    .join("  ")

/** Draws until interrupted, and leaves the last state on the screen. */
export const show = (chains: ReadonlyArray<ChainStatus>): Effect.Effect<never> => {
  if (!canRedraw(process.stdout))
    return Effect.forever(
      Effect.delay(
        Effect.suspend(() => writeLines(chains.map(plain))),
        "5 seconds",
      ),
    )
  const screen = new InPlace(process.stdout)
  const draw = Effect.sync(() => {
    const rows = chains.map((chain) =>
      cells(chain).map((cell) => (chain.phase === "live" ? cell : ([cell, 33] as const))),
    )
    screen.draw(table(columns, rows, screen.size.columns))
  })
  return Effect.forever(Effect.andThen(draw, Effect.sleep("250 millis")))
}
