/**
 * The second look: what is about to become final is fetched once more, from somebody else, and compared block by block.
 *
 * A node that leaves a log out of an answer under a filter cannot be caught in any other way. Where two answers differ,
 * the block is read again from both, by its hash and with all checks; if these agree they are believed, else the larger
 * one: omission is the known fault. What was stored wrong is popped and pushed again while it still can be; what is
 * history already is compared before it is pushed.
 */
import { Effect } from "effect"
import type { Block, Hex } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { lowPriority } from "../endpoint/RateLimiter.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import { recordSuccess } from "../endpoint/PoolMember.ts"
import type { PoolMember } from "../endpoint/PoolMember.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import { firstUnfinalized } from "../store/Journal.ts"
import type { Journal, BlockRecord } from "../store/Journal.ts"
import { digestOf } from "./Provenance.ts"
import type { BlockDigest, Provenance } from "./Provenance.ts"
import * as Headers from "../endpoint/Headers.ts"
import type { LogSource } from "../logs/LogSource.ts"

type Source = PoolMember<Connection>

/** What the second look found; each is told once, with numbers of logs or blocks. */
export interface AuditEvents {
  readonly missing: (logs: number) => void
  readonly extra: (logs: number) => void
  readonly unaudited: (blocks: number) => void
  /** This endpoint's answer was not the one that is believed. */
  readonly contradicted: (endpoint: string, detail: string) => Effect.Effect<void>
}

export interface AuditOptions {
  readonly sourceInUse: Source
  /** There is no other endpoint, not even one that is away: the same one is asked a second time. */
  readonly singleEndpoint: boolean
  /** Who is asked for history, in order: the first as always, the second to compare. */
  readonly sources: () => ReadonlyArray<Source>
  readonly logsOf: (source: Source) => LogSource
  readonly logs: LogSource
  readonly events: AuditEvents
}

/** Finality waits for the second look so long (milliseconds), and not longer. */
const longestAudit = 10 * 60_000

/** Blocks that are settled at the same time. */
const arbitratedAtOnce = 4

const isSame = (a: BlockDigest | undefined, b: BlockDigest | undefined): boolean => {
  if (a === undefined || b === undefined) return (a?.count ?? 0) === (b?.count ?? 0)
  if (a.count === 0 && b.count === 0) return true
  return (
    a.hash === b.hash &&
    a.count === b.count &&
    (a.sum === undefined || b.sum === undefined || a.sum === b.sum)
  )
}

export interface Audit {
  readonly provenance: Provenance
  /** A range of final blocks from two endpoints; from one where there is no other. */
  readonly finalizedRange: LogSource["finalizedRange"]
  /**
   * Looks at what is stored above the floor, up to a block: the lowest that has to be written again, or `undefined`.
   * Where nobody answers for as long as its patience lasts (milliseconds; ten minutes), the blocks are counted as
   * unaudited; so are those that were read with another filter, of which nobody can tell any more what matched it.
   *
   * @param journal as the store has it: another ingestor may have written a block from another answer than ours
   */
  readonly auditRange: (journal: Journal, to: number, timeout?: number) => Effect.Effect<number | undefined>
}

/** @param provenance what was written and not looked at yet; outlives the connections of a chain */
export const make = (
  { sourceInUse, singleEndpoint, sources, logsOf, logs, events }: AuditOptions,
  provenance: Provenance,
): Audit => {
  const nameOf = (source: Source) => source.connection.name

  /**
   * Who can contradict these blocks: those that did not tell them; and how many are enough: one, or two where several
   * told them, or nobody knows who.
   */
  const auditorsFor = (from: number, to: number) => {
    if (singleEndpoint) return { auditors: [sourceInUse], enough: 1 }
    const origins = provenance.sourcesOf(from, to)
    const [origin] = origins.size === 1 ? origins : []
    const enough = origin === undefined ? 2 : 1
    const auditors = sources().filter((source) => nameOf(source) !== origin)
    return { auditors, enough }
  }

  /** Who is asked about a block on which a witness does not agree: also who told it, or else somebody. */
  const arbiters = (auditor: Source, origin: string | undefined): ReadonlyArray<Source> => {
    const others = sources().filter((source) => source !== auditor)
    const other = others.find((source) => nameOf(source) === origin) ?? others[0]
    return other === undefined ? [auditor] : [other, auditor]
  }

  const byNumber = (blocks: ReadonlyArray<Block>) => new Map(blocks.map((block) => [block.number, block]))

  const largest = (blocks: ReadonlyArray<Block>) =>
    blocks.reduce((a, b) => (b.logs.length > a.logs.length ? b : a))

  /**
   * What is believed of one block, read with all checks, and how many could say anything; an error where nobody can. Who
   * shows another block at this height is on another branch, and has no say: forks are not for the audit to settle.
   *
   * @param hash of the block; that of the endpoint in use where it is not known
   */
  const arbitrate = Effect.fnUntraced(function* (
    number: number,
    asked: ReadonlyArray<Source>,
    hash: Hex | undefined,
  ) {
    const canonical = hash ?? (yield* Headers.header(sourceInUse.connection, number))?.hash
    const answers = yield* Effect.forEach(asked, (source) =>
      Effect.result(
        Effect.flatMap(Headers.header(source.connection, number), (header) =>
          header === undefined
            ? Effect.fail(integrityError(nameOf(source), `the node does not have block ${number}`))
            : logsOf(source).block(header),
        ),
      ),
    )
    const blocks: Array<Block> = []
    const elsewhere = new Set<Source>()
    for (const [i, answer] of answers.entries()) {
      if (answer._tag === "Failure") continue
      if (answer.success.hash === canonical) blocks.push(answer.success)
      else elsewhere.add(asked[i]!)
    }
    if (blocks.length === 0)
      return yield* integrityError(nameOf(asked[0]!), `nobody can read block ${number} again`)
    return { block: largest(blocks), answers: blocks.length, elsewhere }
  })

  const differ = (number: number) => `its logs of block ${number} are not the ones that are believed`

  const endOf = (blocks: ReadonlyArray<Block>) => blocks.at(-1)!.number

  /** Neither more nor less than the blocks up to a height. */
  const upTo = (
    through: number,
    blocks: ReadonlyArray<Block>,
    more: LogSource,
  ): Effect.Effect<ReadonlyArray<Block>, EndpointError> =>
    endOf(blocks) >= through
      ? Effect.succeed(blocks.filter(({ number }) => number <= through))
      : Effect.flatMap(piece(more, endOf(blocks) + 1, through), (next) =>
          upTo(through, [...blocks, ...next], more),
        )

  /** The beginning of a range, as wide as this endpoint bears it: another one may bear less than the first. */
  const piece = (logs: LogSource, from: number, to: number) =>
    Effect.suspend(() => logs.finalizedRange(from, Math.min(to, from + logs.width() - 1)))

  const finalizedRange = Effect.fnUntraced(function* (from: number, to: number) {
    const [first, second] = sources()
    if (second === undefined) {
      const blocks = yield* logs.finalizedRange(from, to)
      // A single endpoint says the same of final blocks twice: reading them again would prove nothing.
      if (!singleEndpoint) events.unaudited(endOf(blocks) - from + 1)
      return provenance.applyCorrections(from, endOf(blocks), byNumber(blocks))
    }
    const [ours, begun] = yield* Effect.all(
      [logs.finalizedRange(from, to), Effect.result(piece(logsOf(second), from, to))],
      { concurrency: 2 },
    )
    const through = endOf(ours)
    const audited =
      begun._tag === "Failure" ? begun : yield* Effect.result(upTo(through, begun.success, logsOf(second)))
    if (audited._tag === "Failure") {
      events.unaudited(through - from + 1)
      return provenance.applyCorrections(from, through, byNumber(ours))
    }
    const blocks = byNumber(ours)
    const theirs = byNumber(audited.success)
    const different = [...new Set([...blocks.keys(), ...theirs.keys()])].filter((number) => {
      const [a, b] = [blocks.get(number), theirs.get(number)]
      // The last block becomes our head: it is compared also where it has no logs.
      return !isSame(a && digestOf(a), b && digestOf(b)) || (number === through && a?.hash !== b?.hash)
    })
    yield* Effect.forEach(
      different,
      Effect.fnUntraced(function* (number) {
        const { block, answers, elsewhere } = yield* arbitrate(number, [first!, second], undefined)
        const [a, b] = [blocks.get(number), theirs.get(number)].map((one) =>
          one?.hash === block.hash ? one : undefined,
        )
        // One voice alone may add a log, but not take one away: leaving out is the known fault.
        const served = [a, b].filter((one) => one !== undefined)
        const accepted = answers === 1 ? largest([block, ...served]) : block
        for (const [source, answer] of [
          [first!, a],
          [second, b],
        ] as const) {
          if (!elsewhere.has(source) && !isSame(answer && digestOf(answer), digestOf(accepted)))
            yield* events.contradicted(nameOf(source), differ(number))
        }
        if (accepted.logs.length > 0 || number === through) blocks.set(number, accepted)
        else blocks.delete(number)
      }),
      { concurrency: arbitratedAtOnce },
    )
    return provenance.applyCorrections(from, through, blocks)
  }, lowPriority)

  const stored = ({ hash, count }: BlockRecord): BlockDigest => ({ hash, count, sum: provenance.sumOf(hash) })

  /** Looks at a piece, or the beginning of it: how far. Adds the blocks that have to be written again to those of the look. */
  const auditPiece = Effect.fnUntraced(function* (
    window: ReadonlyArray<BlockRecord>,
    source: Source,
    from: number,
    to: number,
    wrong: Set<number>,
  ) {
    const answer = yield* logsOf(source).finalizedRange(from, to, false)
    yield* recordSuccess(source)
    const through = endOf(answer)
    const theirs = byNumber(answer)
    const ours = new Map(
      window
        .filter(({ number }) => number >= from && number <= through)
        .map((record) => [record.number, record]),
    )
    for (const number of [...new Set([...ours.keys(), ...theirs.keys()])].sort((a, b) => a - b)) {
      const record = ours.get(number)
      const before = record && stored(record)
      const answer = theirs.get(number)
      if (isSame(before, answer && digestOf(answer))) continue
      const isElsewhere = () => integrityError(nameOf(source), `block ${number} is another one than ours`)
      if (record !== undefined && answer !== undefined && record.hash !== answer.hash)
        return yield* isElsewhere()
      const [origin] = provenance.sourcesOf(number, number)
      const asked = arbiters(source, origin)
      const { block, answers, elsewhere } = yield* arbitrate(number, asked, record?.hash)
      if (elsewhere.has(source)) return yield* isElsewhere()
      const accepted = digestOf(block)
      const isOutvoted = answers === 1 && accepted.count < (before?.count ?? 0)
      if (isOutvoted || isSame(before, accepted)) {
        yield* events.contradicted(nameOf(source), differ(number))
        continue
      }
      if (wrong.has(number)) continue
      wrong.add(number)
      provenance.recordCorrection(block)
      const change = accepted.count - (before?.count ?? 0)
      // As many logs at other places: what is missing is hidden by what is too much.
      events.missing(change === 0 ? 1 : Math.max(change, 0))
      events.extra(change === 0 ? 1 : Math.max(-change, 0))
      yield* events.contradicted(origin ?? nameOf(sourceInUse), differ(number))
    }
    return through
  })

  const countUnaudited = (from: number, to: number) => {
    events.unaudited(Math.max(to - Math.max(from - 1, provenance.unauditedThrough), 0))
    provenance.unauditedThrough = Math.max(provenance.unauditedThrough, to)
  }

  const auditRange = (journal: Journal, to: number, timeout = longestAudit) =>
    Effect.gen(function* () {
      const { filterSince, window } = journal
      const from = Math.max(firstUnfinalized(journal), filterSince)
      if (filterSince > firstUnfinalized(journal))
        countUnaudited(firstUnfinalized(journal), Math.min(filterSince - 1, to))
      if (from > to) return undefined
      const wrong = new Set<number>()
      const lowest = () => (wrong.size === 0 ? undefined : Math.min(...wrong))
      const auditWith = Effect.fnUntraced(function* (auditor: Source) {
        // What is written again is looked at again.
        const through = (lowest() ?? to + 1) - 1
        for (let next = from; next <= through;) {
          const width = logsOf(auditor).width()
          next = (yield* auditPiece(window, auditor, next, Math.min(next + width - 1, through), wrong)) + 1
        }
      })
      /** Whoever cannot say anything is replaced by the next one. */
      const attempt = Effect.gen(function* () {
        const { auditors, enough } = auditorsFor(from, to)
        let missing = enough
        let last = integrityError(nameOf(sourceInUse), "there is nobody else to ask")
        for (let i = 0; missing > 0; i++) {
          if (auditors.length - i < missing) return yield* last
          const audited = yield* Effect.result(auditWith(auditors[i]!))
          if (audited._tag === "Success") missing--
          else last = audited.failure
        }
      })
      for (let wait = 1000; ; wait = Math.min(wait * 2, 60_000)) {
        const found = yield* Effect.result(attempt)
        const now = yield* Monotonic.millis
        if (found._tag === "Success") {
          provenance.failingSince = undefined
          return lowest()
        }
        provenance.failingSince ??= now
        const left = provenance.failingSince + timeout - now
        if (left <= 0) break
        yield* Effect.sleep(Math.min(wait, left))
      }
      // Too few are better than nobody, but do not count.
      const { auditors, enough } = auditorsFor(from, to)
      yield* Effect.forEach(auditors.slice(0, enough), (auditor) => Effect.ignore(auditWith(auditor)))
      countUnaudited(from, to)
      return lowest()
    }).pipe(lowPriority)

  return { provenance, finalizedRange, auditRange }
}
