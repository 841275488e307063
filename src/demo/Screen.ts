/** One live line per chain: redrawn in place on a terminal, a plain line now and then elsewhere. */
import { Clock, Effect } from "effect"
import type { ChainStatus } from "../web/ChainStatus.ts"

/** What the last drawing knew, to tell rates. */
type Seen = Map<string, { readonly at: number; readonly logs: number; readonly rate: number }>

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

/** The moving average of the rate reacts within a few seconds. */
const rateOf = (seen: Seen, chain: ChainStatus, now: number): number => {
  const before = seen.get(chain.name)
  const seconds = before ? (now - before.at) / 1000 : 0
  if (before === undefined || seconds <= 0) {
    seen.set(chain.name, { at: now, logs: chain.published, rate: 0 })
    return 0
  }
  const weight = Math.min(seconds / 3, 1)
  const rate = before.rate * (1 - weight) + ((chain.published - before.logs) / seconds) * weight
  seen.set(chain.name, { at: now, logs: chain.published, rate })
  return rate
}

const cells = (chain: ChainStatus, rate: number): ReadonlyArray<string> => {
  const latency = chain.latency(0.5)
  return [
    chain.name,
    chain.phase,
    String(chain.head ?? "-"),
    String(chain.stored ?? "-"),
    String(chain.published),
    rate.toFixed(0),
    latency === undefined ? "-" : `${latency.toFixed(0)} ms`,
    chain.reorgs === 0 ? "0" : `${chain.reorgs} (≤${chain.deepestReorg})`,
    chain.breakerState._tag.toLowerCase(),
  ]
}

const plain = (chain: ChainStatus, rate: number): string =>
  cells(chain, rate)
    .map((cell, i) => (i === 0 ? cell : `${columns[i]![0]} ${cell}`))
    .join("  ")

const style = (code: number, text: string, colours: boolean) =>
  colours ? `\u001b[${code}m${text}\u001b[0m` : text

/** Draws until interrupted. Leaves the last state on the screen. */
export const show = (
  chains: ReadonlyArray<ChainStatus>,
  stream: NodeJS.WriteStream,
): Effect.Effect<never> => {
  const seen: Seen = new Map()
  if (!stream.isTTY) {
    return Clock.currentTimeMillis.pipe(
      Effect.tap((now) =>
        Effect.sync(() => {
          for (const chain of chains) stream.write(`${plain(chain, rateOf(seen, chain, now))}\n`)
        }),
      ),
      Effect.delay("5 seconds"),
      Effect.forever,
    )
  }
  const colours = !process.env["NO_COLOR"]
  let drawn = 0
  const draw = (now: number) => {
    const lines = [
      style(2, row(columns.map(([title]) => title)), colours),
      ...chains.map((chain) => {
        const line = row(cells(chain, rateOf(seen, chain, now)))
        return chain.phase === "live" ? line : style(33, line, colours)
      }),
    ]
    const up = drawn === 0 ? "" : `\u001b[${drawn}A`
    stream.write(up + lines.map((line) => `\u001b[2K${line}\n`).join(""))
    drawn = lines.length
  }
  return Clock.currentTimeMillis.pipe(
    Effect.tap((now) => Effect.sync(() => draw(now))),
    Effect.andThen(Effect.sleep("250 millis")),
    Effect.forever,
  )
}
