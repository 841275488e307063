/**
 * The audit: re-fetches blocks that are about to become final from a second endpoint and compares them block by block.
 *
 * A node that omits a log from an answer under a filter cannot be detected in any other way. If two answers differ, the
 * block is read again from both endpoints, by its hash and with all integrity checks. If these answers agree, they are
 * accepted; otherwise the larger one is, because omission is the known fault. A block that was stored wrong is popped and
 * pushed again before it is final; blocks that are already final are compared before they are pushed.
 */
import { Effect } from "effect"
import type { Block } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { lowPriority } from "../endpoint/RateLimiter.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import { recordSuccess } from "../endpoint/PoolMember.ts"
import { firstUnfinalized } from "../store/Journal.ts"
import type { Journal, BlockRecord } from "../store/Journal.ts"
import { arbitrate, largest, nameOf } from "./Arbitration.ts"
import type { Source } from "./Arbitration.ts"
import type { Publisher } from "./ChainEvents.ts"
import { digestOf } from "./Provenance.ts"
import type { BlockDigest, Provenance } from "./Provenance.ts"
import type { LogSource } from "../logs/LogSource.ts"

export interface AuditOptions {
  readonly sourceInUse: Source
  /** Only one endpoint is configured: the audit asks the same one a second time. */
  readonly singleEndpoint: boolean
  /** The endpoints for final blocks, in order: the first serves them, the second is compared. */
  readonly sources: () => ReadonlyArray<Source>
  readonly logsOf: (source: Source) => LogSource
  readonly logs: LogSource
  readonly events: Publisher
}

/** The longest time (milliseconds) that finality waits for the audit. */
const longestAudit = 10 * 60_000

/** Blocks that are arbitrated at the same time. */
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
  /** A range of final blocks, compared across two endpoints; from one if there is no other. */
  readonly finalizedRange: LogSource["finalizedRange"]
  /**
   * Audits what is stored above the finalized head, up to a block.
   *
   * Blocks are counted as unaudited if no endpoint answers within the timeout, or if they were read with another filter:
   * what matched that filter is not known any more.
   *
   * @param journal as the store has it: another ingestor may have written a block from another answer than ours
   * @param timeout in milliseconds (default: ten minutes)
   * @returns the lowest block that has to be rewritten, if any
   */
  readonly auditRange: (journal: Journal, to: number, timeout?: number) => Effect.Effect<number | undefined>
}

/** @param provenance what was written and not audited yet; outlives the connections of a chain */
export const make = (
  { sourceInUse, singleEndpoint, sources, logsOf, logs, events }: AuditOptions,
  provenance: Provenance,
): Audit => {
  /**
   * The endpoints that can audit these blocks, which are those that did not serve them, and the quorum: one, or two if
   * several endpoints served them or the source is unknown.
   */
  const auditorsFor = (from: number, to: number) => {
    if (singleEndpoint) return { auditors: [sourceInUse], quorum: 1 }
    const origins = provenance.sourcesOf(from, to)
    const [origin] = origins.size === 1 ? origins : []
    const quorum = origin === undefined ? 2 : 1
    const auditors = sources().filter((source) => nameOf(source) !== origin)
    return { auditors, quorum }
  }

  /** The endpoints that arbitrate a block on which an auditor disagrees: its source, or any other one, and the auditor. */
  const arbiters = (auditor: Source, origin: string | undefined): ReadonlyArray<Source> => {
    const others = sources().filter((source) => source !== auditor)
    const other = others.find((source) => nameOf(source) === origin) ?? others[0]
    return other === undefined ? [auditor] : [other, auditor]
  }

  const unaudited = (blocks: number) => events.record({ _tag: "Unaudited", blocks })

  /** An answer of this endpoint differs from the accepted one. */
  const contradicted = (endpoint: string, detail: string) =>
    events.publish({ _tag: "Contradicted", endpoint, detail })

  const byNumber = (blocks: ReadonlyArray<Block>) => new Map(blocks.map((block) => [block.number, block]))

  const mismatchDetail = (number: number) => `its logs of block ${number} differ from the accepted ones`

  const endOf = (blocks: ReadonlyArray<Block>) => blocks.at(-1)!.number

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

  /** The beginning of a range, as wide as this endpoint serves it: the limit differs between endpoints. */
  const fetchChunk = (logs: LogSource, from: number, to: number) =>
    Effect.suspend(() => logs.finalizedRange(from, Math.min(to, from + logs.width() - 1)))

  const finalizedRange = Effect.fnUntraced(function* (from: number, to: number) {
    const [first, second] = sources()
    if (second === undefined) {
      const blocks = yield* logs.finalizedRange(from, to)
      // A single endpoint gives the same answer for final blocks twice: reading them again would prove nothing.
      if (!singleEndpoint) unaudited(endOf(blocks) - from + 1)
      return provenance.applyCorrections(from, endOf(blocks), byNumber(blocks))
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
      return provenance.applyCorrections(from, through, byNumber(ours))
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
        const { block, answers, onOtherFork } = yield* arbitrate(
          { sourceInUse, logsOf },
          number,
          [first!, second],
          undefined,
        )
        const [a, b] = [blocks.get(number), theirs.get(number)].map((one) =>
          one?.hash === block.hash ? one : undefined,
        )
        // A single endpoint may add a log, but never remove one: omission is the known fault.
        const served = [a, b].filter((one) => one !== undefined)
        const accepted = answers === 1 ? largest([block, ...served]) : block
        for (const [source, answer] of [
          [first!, a],
          [second, b],
        ] as const) {
          if (!onOtherFork.has(source) && !isSame(answer && digestOf(answer), digestOf(accepted)))
            yield* contradicted(nameOf(source), mismatchDetail(number))
        }
        if (accepted.logs.length > 0 || number === through) blocks.set(number, accepted)
        else blocks.delete(number)
      }),
      { concurrency: arbitratedAtOnce },
    )
    return provenance.applyCorrections(from, through, blocks)
  }, lowPriority)

  const stored = ({ hash, count }: BlockRecord): BlockDigest => ({ hash, count, sum: provenance.sumOf(hash) })

  /** Audits the beginning of a range. Adds the blocks to rewrite to `mismatches`, and returns the last audited block. */
  const auditChunk = Effect.fnUntraced(function* (
    window: ReadonlyArray<BlockRecord>,
    source: Source,
    from: number,
    to: number,
    mismatches: Set<number>,
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
      const forkError = () => integrityError(nameOf(source), `its block ${number} is not ours`)
      if (record !== undefined && answer !== undefined && record.hash !== answer.hash)
        return yield* forkError()
      const [origin] = provenance.sourcesOf(number, number)
      const asked = arbiters(source, origin)
      const { block, answers, onOtherFork } = yield* arbitrate(
        { sourceInUse, logsOf },
        number,
        asked,
        record?.hash,
      )
      if (onOtherFork.has(source)) return yield* forkError()
      const accepted = digestOf(block)
      const isUnconfirmedRemoval = answers === 1 && accepted.count < (before?.count ?? 0)
      if (isUnconfirmedRemoval || isSame(before, accepted)) {
        yield* contradicted(nameOf(source), mismatchDetail(number))
        continue
      }
      if (mismatches.has(number)) continue
      mismatches.add(number)
      provenance.recordCorrection(block)
      const change = accepted.count - (before?.count ?? 0)
      // The same number of logs at other indexes: at least one is missing and one is extra.
      const isReplaced = change === 0
      events.record({
        _tag: "Corrected",
        missing: isReplaced ? 1 : Math.max(change, 0),
        extra: isReplaced ? 1 : Math.max(-change, 0),
      })
      yield* contradicted(origin ?? nameOf(sourceInUse), mismatchDetail(number))
    }
    return through
  })

  const countUnaudited = (from: number, to: number) => {
    unaudited(Math.max(to - Math.max(from - 1, provenance.unauditedThrough), 0))
    provenance.unauditedThrough = Math.max(provenance.unauditedThrough, to)
  }

  const auditRange = (journal: Journal, to: number, timeout = longestAudit) =>
    Effect.gen(function* () {
      const { filterSince, window } = journal
      const from = Math.max(firstUnfinalized(journal), filterSince)
      if (filterSince > firstUnfinalized(journal))
        countUnaudited(firstUnfinalized(journal), Math.min(filterSince - 1, to))
      if (from > to) return undefined
      const mismatches = new Set<number>()
      const lowest = () => (mismatches.size === 0 ? undefined : Math.min(...mismatches))
      const auditWith = Effect.fnUntraced(function* (auditor: Source) {
        // Blocks from the lowest mismatch on are rewritten, and audited again then.
        const through = (lowest() ?? to + 1) - 1
        for (let next = from; next <= through;) {
          const width = logsOf(auditor).width()
          next =
            (yield* auditChunk(window, auditor, next, Math.min(next + width - 1, through), mismatches)) + 1
        }
      })
      /** Replaces an auditor that fails by the next one. */
      const attempt = Effect.gen(function* () {
        const { auditors, quorum } = auditorsFor(from, to)
        let missing = quorum
        let last = integrityError(nameOf(sourceInUse), "there is no other endpoint to audit with")
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
      // Fewer auditors than the quorum may still find something, but the blocks count as unaudited.
      const { auditors, quorum } = auditorsFor(from, to)
      yield* Effect.forEach(auditors.slice(0, quorum), (auditor) => Effect.ignore(auditWith(auditor)))
      countUnaudited(from, to)
      return lowest()
    }).pipe(lowPriority)

  return { provenance, finalizedRange, auditRange }
}
