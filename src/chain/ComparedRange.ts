/**
 * A range of final blocks that is compared across two endpoints before it is stored; from one if there is no other. A block
 * on which they disagree is arbitrated.
 */
import { Effect } from "effect"
import type { Block } from "../Domain.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import { lowPriority } from "../endpoint/RateLimiter.ts"
import { atOrAbove } from "../logs/ExistingHeaders.ts"
import type { LogSource } from "../logs/LogSource.ts"
import { arbitrate, byNumber, contradicted, endOf, largest } from "./Arbitration.ts"
import type { AuditOptions } from "./Arbitration.ts"
import type { Endpoint } from "../endpoint/Endpoint.ts"
import { digestOf, isSame } from "./Provenance.ts"

/** Blocks that are arbitrated or corrected at the same time. */
const blocksAtOnce = 4

/** The beginning of a range, as wide as this endpoint serves it: the limit differs between endpoints. */
const fetchChunk = (logs: LogSource, from: number, to: number) =>
  Effect.suspend(() => logs.finalizedRange(from, Math.min(to, from + logs.width() - 1)))

/** Exactly the blocks up to a height: drops those above, and fetches those that are missing. */
const upTo = (
  through: number,
  blocks: ReadonlyArray<Block>,
  more: LogSource,
): Effect.Effect<ReadonlyArray<Block>, EndpointError> =>
  endOf(blocks) >= through
    ? Effect.succeed(blocks.filter(({ number }) => number <= through))
    : Effect.flatMap(fetchChunk(more, endOf(blocks) + 1, through), (next) =>
        upTo(through, [...blocks, ...next], more),
      )

/** Decides what the logs of a block are, given the answers of two endpoints (`undefined`: no block, or none with logs). */
const settle = Effect.fnUntraced(function* (
  options: AuditOptions,
  number: number,
  answers: ReadonlyArray<readonly [source: Endpoint, block: Block | undefined]>,
) {
  const sources = answers.map(([source]) => source)
  const { block, answers: confirmed, onOtherFork } = yield* arbitrate(options, number, sources, undefined)
  const canonical = answers.map(
    ([source, one]) => [source, one?.hash === block.hash ? one : undefined] as const,
  )
  // A single endpoint may add a log, but never remove one: omission is the known fault.
  const served = canonical.flatMap(([, one]) => one ?? [])
  const accepted = confirmed === 1 ? largest([block, ...served]) : block
  for (const [source, answer] of canonical) {
    if (!onOtherFork.has(source) && !isSame(answer && digestOf(answer), digestOf(accepted)))
      yield* contradicted(options, source.connection.name, number)
  }
  return accepted
})

/** The blocks of a range, with the corrections of those that are still canonical. */
const withCorrections = Effect.fnUntraced(function* (
  { provenance, sourceInUse }: AuditOptions,
  from: number,
  through: number,
  blocks: Map<number, Block>,
) {
  const correct = Effect.fnUntraced(function* ({ logs, ...block }: Block) {
    const served = blocks.get(block.number)
    if (served !== undefined && served.logs.length >= logs.length) return
    const { hash } = served ?? (yield* atOrAbove(sourceInUse.connection, block.number))
    // A copy: `acknowledge` frees the logs of pushed blocks.
    if (hash === block.hash) blocks.set(block.number, { ...block, logs: [...logs] })
  })
  yield* Effect.forEach(provenance.corrections(from, through), correct, { concurrency: blocksAtOnce })
  return [...blocks.values()].sort((a, b) => a.number - b.number)
})

/** @returns the range as `LogSource.finalizedRange` serves it, compared and corrected */
export const make = (options: AuditOptions): LogSource["finalizedRange"] => {
  const { events, logs, logsOf, singleEndpoint, sources } = options
  const unaudited = (blocks: number) => events.record({ _tag: "Unaudited", blocks })

  return Effect.fnUntraced(function* (from: number, to: number) {
    const [first, second] = sources()
    if (second === undefined) {
      const blocks = yield* logs.finalizedRange(from, to)
      // A single endpoint gives the same answer for final blocks twice: reading them again would prove nothing.
      if (!singleEndpoint) unaudited(endOf(blocks) - from + 1)
      return yield* withCorrections(options, from, endOf(blocks), byNumber(blocks))
    }
    const [ours, begun] = yield* Effect.all(
      [logs.finalizedRange(from, to), Effect.result(fetchChunk(logsOf(second), from, to))],
      { concurrency: 2 },
    )
    const through = endOf(ours)
    const audited =
      begun._tag === "Failure" ? begun : yield* Effect.result(upTo(through, begun.success, logsOf(second)))
    if (audited._tag === "Failure") {
      unaudited(through - from + 1)
      return yield* withCorrections(options, from, through, byNumber(ours))
    }
    const blocks = byNumber(ours)
    const theirs = byNumber(audited.success)
    const different = [...new Set([...blocks.keys(), ...theirs.keys()])].filter((number) => {
      const [a, b] = [blocks.get(number), theirs.get(number)]
      // The last block becomes our head: it is compared also if it has no logs.
      return !isSame(a && digestOf(a), b && digestOf(b)) || (number === through && a?.hash !== b?.hash)
    })
    yield* Effect.forEach(
      different,
      Effect.fnUntraced(function* (number) {
        const accepted = yield* settle(options, number, [
          [first!, blocks.get(number)],
          [second, theirs.get(number)],
        ])
        if (accepted.logs.length > 0 || number === through) blocks.set(number, accepted)
        else blocks.delete(number)
      }),
      { concurrency: blocksAtOnce },
    )
    return yield* withCorrections(options, from, through, blocks)
  }, lowPriority)
}
