/**
 * The second look: what is about to become final is fetched once more, from somebody else, and compared block by block.
 *
 * A node that leaves a log out of an answer under a filter cannot be caught in any other way. Where two answers differ,
 * the block is read again from both, by its hash and with all checks; if these agree they are believed, else the larger
 * one: omission is the known fault. What was stored wrong is popped and pushed again while it still can be; what is
 * history already is compared before it is pushed.
 */
import { Clock, Effect } from "effect"
import type { Block, Hex } from "../Domain.ts"
import { unhurried } from "../endpoint/Budget.ts"
import { EndpointError, Unverified } from "../endpoint/EndpointError.ts"
import type { Live } from "../endpoint/Live.ts"
import type { HttpConnection } from "../endpoint/HttpEndpoint.ts"
import type { Recorded } from "../store/Journal.ts"
import * as Headers from "./Headers.ts"
import type { Logs } from "./Logs.ts"

type Source = Live<HttpConnection>

/** What the second look found; each is told once, with numbers of logs or blocks. */
export interface Findings {
  readonly missing: (logs: number) => void
  readonly extra: (logs: number) => void
  readonly unaudited: (blocks: number) => void
  /** This endpoint's answer was not the one that is believed. */
  readonly contradicted: (endpoint: string, detail: string) => Effect.Effect<void>
}

export interface AuditOptions {
  readonly sourceInUse: Source
  /** Who is asked for history, in order: the first as always, the second to compare. */
  readonly sources: () => ReadonlyArray<Source>
  readonly logsOf: (source: Source) => Logs
  readonly logs: Logs
  readonly findings: Findings
}

/** Finality waits for the second look so long (milliseconds), and not longer. */
const mostPatience = 10 * 60_000

/** Blocks that are settled at the same time. */
const settledAtOnce = 4

/** Blocks whose sums are kept; of older ones only the number of logs is compared, which the store knows. */
const mostSums = 50_000

/** A block's logs in brief: the same for the same positions of the same block. */
interface Brief {
  readonly hash: Hex
  readonly count: number
  /** `undefined` where only the store knows the block. */
  readonly sum: number | undefined
}

const briefOf = ({ hash, logs }: Block): Brief => ({
  hash,
  count: logs.length,
  sum: logs.reduce((sum, { index }) => (Math.imul(sum, 31) + index) | 0, 0),
})

const isSame = (a: Brief | undefined, b: Brief | undefined): boolean => {
  if (a === undefined || b === undefined) return (a?.count ?? 0) === (b?.count ?? 0)
  if (a.count === 0 && b.count === 0) return true
  return (
    a.hash === b.hash &&
    a.count === b.count &&
    (a.sum === undefined || b.sum === undefined || a.sum === b.sum)
  )
}

/** What outlives the connections of a chain: what this process has written and not yet looked at again. */
export class Memory {
  readonly #sums = new Map<Hex, { readonly number: number; readonly sum: number; readonly by: string }>()
  /** Since when (unix milliseconds) there has been no second look. */
  failingSince: number | undefined

  /** A block was pushed that is not final yet. */
  wrote(block: Block, by: string): void {
    if (block.logs.length > 0) {
      this.#sums.set(block.hash, { number: block.number, sum: briefOf(block).sum!, by })
      if (this.#sums.size > mostSums) this.#sums.delete(this.#sums.keys().next().value!)
    }
  }

  sumOf(hash: Hex) {
    return this.#sums.get(hash)
  }

  /** Everything up to this height is final. */
  forget(through: number): void {
    for (const [hash, { number }] of this.#sums) if (number <= through) this.#sums.delete(hash)
  }
}

export interface Audit {
  readonly memory: Memory
  /** The name of the endpoint in use. */
  readonly by: string
  /** A range of final blocks from two endpoints; from one where there is no other. */
  readonly history: Logs["history"]
  /**
   * Looks at `from … to` of what is stored: the lowest block that has to be written again, or `undefined`. Where nobody
   * answers for ten minutes, the blocks are counted as unaudited.
   */
  readonly look: (
    window: ReadonlyArray<Recorded>,
    from: number,
    to: number,
  ) => Effect.Effect<number | undefined>
}

export const make = (
  { sourceInUse, sources, logsOf, logs, findings }: AuditOptions,
  memory: Memory,
): Audit => {
  const nameOf = (source: Source) => source.connection.name
  const other = () => sources().find((source) => source !== sourceInUse)

  const byNumber = (blocks: ReadonlyArray<Block>) => new Map(blocks.map((block) => [block.number, block]))

  /** What each of them says of one block, with all checks; the error of the first where none can say anything. */
  const askBoth = Effect.fnUntraced(function* (number: number, both: readonly [Source, Source]) {
    const answers = yield* Effect.forEach(both, (source) =>
      Effect.result(
        Effect.flatMap(Headers.header(source.connection, number), (header) =>
          header === undefined
            ? Effect.fail(doubt(nameOf(source), `the node does not have block ${number}`))
            : logsOf(source).tip(header),
        ),
      ),
    )
    const blocks = answers.flatMap((answer) => (answer._tag === "Success" ? [answer.success] : []))
    if (blocks.length === 0) return yield* doubt(nameOf(both[0]), `nobody can read block ${number} again`)
    return blocks.reduce((a, b) => (b.logs.length > a.logs.length ? b : a))
  })

  const doubt = (endpoint: string, detail: string) =>
    new EndpointError({ endpoint, reason: new Unverified({ detail }) })

  const differ = (number: number) => `its logs of block ${number} are not the ones that are believed`

  const endOf = (blocks: ReadonlyArray<Block>) => blocks.at(-1)!.number

  /** Neither more nor less than the blocks up to a height. */
  const upTo = (
    through: number,
    blocks: ReadonlyArray<Block>,
    more: Logs,
  ): Effect.Effect<ReadonlyArray<Block>, EndpointError> =>
    endOf(blocks) >= through
      ? Effect.succeed(blocks.filter(({ number }) => number <= through))
      : Effect.flatMap(more.history(endOf(blocks) + 1, through), (next) =>
          upTo(through, [...blocks, ...next], more),
        )

  const history = Effect.fnUntraced(function* (from: number, to: number) {
    const [first, second] = sources()
    if (second === undefined) {
      const blocks = yield* logs.history(from, to)
      findings.unaudited(endOf(blocks) - from + 1)
      return blocks
    }
    const [ours, begun] = yield* Effect.all(
      [logs.history(from, to), Effect.result(logsOf(second).history(from, to))],
      { concurrency: 2 },
    )
    const through = endOf(ours)
    const looked =
      begun._tag === "Failure" ? begun : yield* Effect.result(upTo(through, begun.success, logsOf(second)))
    if (looked._tag === "Failure") {
      findings.unaudited(through - from + 1)
      return ours
    }
    const blocks = byNumber(ours)
    const theirs = byNumber(looked.success)
    const different = [...new Set([...blocks.keys(), ...theirs.keys()])].filter((number) => {
      const [a, b] = [blocks.get(number), theirs.get(number)]
      return !isSame(a && briefOf(a), b && briefOf(b))
    })
    yield* Effect.forEach(
      different,
      Effect.fnUntraced(function* (number) {
        const believed = yield* askBoth(number, [first!, second])
        for (const [source, answer] of [
          [first!, blocks.get(number)],
          [second, theirs.get(number)],
        ] as const) {
          if (!isSame(answer && briefOf(answer), briefOf(believed)))
            yield* findings.contradicted(nameOf(source), differ(number))
        }
        if (believed.logs.length > 0 || number === through) blocks.set(number, believed)
        else blocks.delete(number)
      }),
      { concurrency: settledAtOnce },
    )
    return [...blocks.values()].sort((a, b) => a.number - b.number)
  }, unhurried)

  const stored = ({ hash, count }: Recorded): Brief => ({ hash, count, sum: memory.sumOf(hash)?.sum })

  /** How far a piece, or the beginning of it, was looked at, and the lowest block that has to be written again. */
  const lookAt = Effect.fnUntraced(function* (
    window: ReadonlyArray<Recorded>,
    source: Source,
    from: number,
    to: number,
  ) {
    const answer = yield* logsOf(source).history(from, to)
    const through = endOf(answer)
    const theirs = byNumber(answer)
    const ours = new Map(
      window
        .filter(({ number }) => number >= from && number <= through)
        .map((record) => [record.number, record]),
    )
    let lowest: number | undefined
    for (const number of [...new Set([...ours.keys(), ...theirs.keys()])].sort((a, b) => a - b)) {
      const record = ours.get(number)
      const before = record && stored(record)
      const answer = theirs.get(number)
      if (isSame(before, answer && briefOf(answer))) continue
      const block = yield* askBoth(number, [sourceInUse, source])
      const believed = briefOf(block)
      if (record !== undefined && record.hash !== believed.hash) {
        return yield* doubt(nameOf(source), `block ${number} is another one than ours`)
      }
      if (isSame(before, believed)) {
        yield* findings.contradicted(nameOf(source), differ(number))
        continue
      }
      const change = believed.count - (before?.count ?? 0)
      // As many logs at other places: what is missing is hidden by what is too much.
      findings.missing(change === 0 ? 1 : Math.max(change, 0))
      findings.extra(change === 0 ? 1 : Math.max(-change, 0))
      const by = (record && memory.sumOf(record.hash)?.by) ?? nameOf(sourceInUse)
      yield* findings.contradicted(by, differ(number))
      lowest ??= number
    }
    return { through, lowest }
  })

  const look = (window: ReadonlyArray<Recorded>, from: number, to: number) =>
    Effect.gen(function* () {
      const attempt = Effect.gen(function* () {
        const source = other() ?? sourceInUse
        let lowest: number | undefined
        for (let next = from; next <= to;) {
          const found = yield* lookAt(window, source, next, Math.min(next + logsOf(source).width() - 1, to))
          lowest ??= found.lowest
          next = found.through + 1
        }
        return lowest
      })
      for (let wait = 1000; ; wait = Math.min(wait * 2, 60_000)) {
        const found = yield* Effect.result(attempt)
        const now = yield* Clock.currentTimeMillis
        if (found._tag === "Success") {
          memory.failingSince = undefined
          return found.success
        }
        memory.failingSince ??= now
        const left = memory.failingSince + mostPatience - now
        if (left <= 0) break
        yield* Effect.sleep(Math.min(wait, left))
      }
      findings.unaudited(to - from + 1)
      return undefined
    }).pipe(unhurried)

  return { memory, by: nameOf(sourceInUse), history, look }
}
