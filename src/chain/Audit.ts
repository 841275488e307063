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
import { integrityError } from "../endpoint/EndpointError.ts"
import { recordSuccess } from "../endpoint/Endpoint.ts"
import { lowPriority } from "../endpoint/RateLimiter.ts"
import type { LogSource } from "../logs/LogSource.ts"
import { freeItems } from "../Memory.ts"
import * as Monotonic from "../Monotonic.ts"
import { firstUnfinalized } from "../store/Journal.ts"
import type { BlockRecord, Journal } from "../store/Journal.ts"
import { arbitrate, byNumber, contradicted, endOf } from "./Arbitration.ts"
import type { AuditOptions } from "./Arbitration.ts"
import { endOfRead } from "./AuditReads.ts"
import type { Endpoint } from "../endpoint/Endpoint.ts"
import * as ComparedRange from "./ComparedRange.ts"
import { digestOf, isSame } from "./Provenance.ts"
import type { BlockDigest, Provenance } from "./Provenance.ts"
import { isCanonical } from "./StoredJournal.ts"

/** The longest time (milliseconds) that finality waits for the audit. */
const longestAudit = 10 * 60_000

export interface AuditRangeOptions {
  /** In milliseconds (default: ten minutes). */
  readonly timeout?: number
  /** Whether other blocks are stored by now: then the audit ends without a result. */
  readonly isOutdated?: () => boolean
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
   * @returns the lowest block that has to be rewritten, if any
   */
  readonly auditRange: (
    journal: Journal,
    to: number,
    options?: AuditRangeOptions,
  ) => Effect.Effect<number | undefined>
}

/**
 * The endpoints that can audit these blocks, which are those that did not serve them, and the quorum: one, or two if
 * several endpoints served them or the source is unknown.
 */
const auditorsFor = (
  { provenance, singleEndpoint, sourceInUse, sources }: AuditOptions,
  from: number,
  to: number,
) => {
  if (singleEndpoint) return { auditors: [sourceInUse], quorum: 1 }
  const origins = provenance.sourcesOf(from, to)
  const [origin] = origins.size === 1 ? origins : []
  const quorum = origin === undefined ? 2 : 1
  return { auditors: sources().filter((source) => source.connection.name !== origin), quorum }
}

/** The endpoints that arbitrate a block on which an auditor disagrees: its source, or any other one, and the auditor. */
const arbitersOf = ({ sources }: AuditOptions, auditor: Endpoint, origin: string | undefined) => {
  const others = sources().filter((source) => source !== auditor)
  const other = others.find((source) => source.connection.name === origin) ?? others[0]
  return other === undefined ? [auditor] : [other, auditor]
}

/** A block, as it is stored and as an auditor has it. */
interface Comparison {
  readonly number: number
  readonly record: BlockRecord | undefined
  readonly answer: Block | undefined
  /** Whether it was found to be wrong before. */
  readonly isReported: boolean
}

/**
 * Audits a block.
 *
 * @param window what is stored
 * @returns whether it is stored wrong, and has to be rewritten
 */
const auditBlock = Effect.fnUntraced(function* (
  options: AuditOptions,
  window: ReadonlyArray<BlockRecord>,
  auditor: Endpoint,
  { number, record, answer, isReported }: Comparison,
) {
  const { events, provenance, sourceInUse } = options
  const before: BlockDigest | undefined = record && {
    hash: record.hash,
    count: record.count,
    sum: provenance.sumOf(record.hash),
  }
  if (isSame(before, answer && digestOf(answer))) return false
  const forkError = integrityError(auditor.connection.name, `its block ${number} is not ours`)
  if (record !== undefined && answer !== undefined && record.hash !== answer.hash) return yield* forkError
  const [origin] = provenance.sourcesOf(number, number)
  const arbiters = arbitersOf(options, auditor, origin)
  const { block, answers, onOtherFork } = yield* arbitrate(options, number, arbiters, record?.hash)
  if (onOtherFork.has(auditor)) return yield* forkError
  // Our block without logs may be another one: the node may have changed to another fork since the audit began.
  if (record === undefined && !(yield* isCanonical(sourceInUse.connection, window, block)))
    return yield* forkError
  const accepted = digestOf(block)
  const isUnconfirmedRemoval = answers === 1 && accepted.count < (before?.count ?? 0)
  if (isUnconfirmedRemoval || isSame(before, accepted)) {
    yield* contradicted(options, auditor.connection.name, number)
    return false
  }
  if (isReported) return true
  provenance.recordCorrection(block)
  const change = accepted.count - (before?.count ?? 0)
  // The same number of logs at other indexes: at least one is missing and one is extra.
  const isReplaced = change === 0
  events.record({
    _tag: "Corrected",
    missing: isReplaced ? 1 : Math.max(change, 0),
    extra: isReplaced ? 1 : Math.max(-change, 0),
  })
  yield* contradicted(options, origin ?? sourceInUse.connection.name, number)
  return true
})

/** Audits the beginning of a range. Adds the blocks to rewrite to `mismatches`, and returns the last audited block. */
const auditChunk = Effect.fnUntraced(function* (
  options: AuditOptions,
  window: ReadonlyArray<BlockRecord>,
  auditor: Endpoint,
  [from, to]: readonly [number, number],
  mismatches: Set<number>,
) {
  const answer = yield* options.inTurn(options.logsOf(auditor).finalizedRange(from, to, false))
  yield* recordSuccess(auditor)
  const through = endOf(answer)
  const theirs = byNumber(answer)
  const ours = new Map(
    window
      .filter(({ number }) => number >= from && number <= through)
      .map((record) => [record.number, record]),
  )
  for (const number of [...new Set([...ours.keys(), ...theirs.keys()])].sort((a, b) => a - b)) {
    const [record, answer, isReported] = [ours.get(number), theirs.get(number), mismatches.has(number)]
    if (yield* auditBlock(options, window, auditor, { number, record, answer, isReported }))
      mismatches.add(number)
  }
  for (const { logs } of answer) freeItems(logs)
  return through
})

/** Audits blocks with as many endpoints as the quorum. @returns the lowest block to rewrite, if any */
const auditBlocks = (
  options: AuditOptions,
  window: ReadonlyArray<BlockRecord>,
  [from, to]: readonly [number, number],
) => {
  const { logsOf, sourceInUse } = options
  const mismatches = new Set<number>()
  const lowest = () => (mismatches.size === 0 ? undefined : Math.min(...mismatches))

  const auditWith = Effect.fnUntraced(function* (auditor: Endpoint) {
    // Blocks from the lowest mismatch on are rewritten, and audited again then.
    const through = (lowest() ?? to + 1) - 1
    for (let next = from; next <= through;) {
      const widest = Math.min(next + logsOf(auditor).width() - 1, through)
      const chunk = [next, endOfRead(window, next, widest)] as const
      next = (yield* auditChunk(options, window, auditor, chunk, mismatches)) + 1
    }
  })

  return {
    lowest,
    /** Replaces an auditor that fails by the next one. */
    withQuorum: Effect.gen(function* () {
      const { auditors, quorum } = auditorsFor(options, from, to)
      let missing = quorum
      let last = integrityError(sourceInUse.connection.name, "there is no other endpoint to audit with")
      for (let i = 0; missing > 0; i++) {
        if (auditors.length - i < missing) return yield* last
        const audited = yield* Effect.result(auditWith(auditors[i]!))
        if (audited._tag === "Success") missing--
        else last = audited.failure
      }
    }),
    /** Fewer auditors than the quorum may still find something. */
    withAny: Effect.suspend(() => {
      const { auditors, quorum } = auditorsFor(options, from, to)
      return Effect.forEach(auditors.slice(0, quorum), (auditor) => Effect.ignore(auditWith(auditor)))
    }),
  }
}

export const make = (options: AuditOptions): Audit => {
  const { events, provenance } = options

  const countUnaudited = (from: number, to: number) => {
    const blocks = Math.max(to - Math.max(from - 1, provenance.unauditedThrough), 0)
    events.record({ _tag: "Unaudited", blocks })
    provenance.unauditedThrough = Math.max(provenance.unauditedThrough, to)
  }

  const auditRange = Effect.fnUntraced(function* (
    journal: Journal,
    to: number,
    { timeout = longestAudit, isOutdated = () => false }: AuditRangeOptions = {},
  ) {
    const { filterSince, window } = journal
    const from = Math.max(firstUnfinalized(journal), filterSince)
    if (filterSince > firstUnfinalized(journal))
      countUnaudited(firstUnfinalized(journal), Math.min(filterSince - 1, to))
    if (from > to) return undefined
    const { lowest, withAny, withQuorum } = auditBlocks(options, window, [from, to])
    for (let wait = 1000; !isOutdated(); wait = Math.min(wait * 2, 60_000)) {
      const found = yield* Effect.result(withQuorum)
      const now = yield* Monotonic.millis
      if (found._tag === "Success") {
        provenance.failingSince = undefined
        return lowest()
      }
      provenance.failingSince ??= now
      const left = provenance.failingSince + timeout - now
      if (left <= 0) {
        yield* withAny
        countUnaudited(from, to)
        return lowest()
      }
      yield* Effect.sleep(Math.min(wait, left))
    }
    return undefined
  }, lowPriority)

  return { provenance, finalizedRange: ComparedRange.make(options), auditRange }
}
