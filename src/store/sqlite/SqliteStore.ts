/**
 * The store in one file: `node:sqlite`, the default when no Redis is configured.
 *
 * Each move is one transaction. With `synchronous=NORMAL` a power loss may lose the last transactions, but never their
 * order; the missing tail is then pushed again. Several processes may share the file.
 */
import { Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import { entryFields } from "../../Domain.ts"
import type { ChainId, Entry } from "../../Domain.ts"
import { afterPush, callLimits, finalizedHead, journalVersion, samePosition } from "../Journal.ts"
import type { CallLimits, Finalize, Journal, Pop, Position, Push } from "../Journal.ts"
import { pinnedFor } from "../Retention.ts"
import type { Retention, Trimmed } from "../Retention.ts"
import { corruptJournal, Store } from "../Store.ts"
import type {
  Acknowledged,
  Conflict,
  EpochCheck,
  FilterChanged,
  FinalizeResult,
  Known,
  PopResult,
  PushResult,
  ResetOptions,
  StoreError,
} from "../Store.ts"

import { NewerVersion, storeError } from "./SqliteErrors.ts"
import * as SqliteFile from "./SqliteFile.ts"
import * as Statements from "./Statements.ts"
import type { EventRow, HeadRow, RecordRow } from "./Statements.ts"

/** How far a chain may grow beyond `maxLength` before its oldest entries are trimmed, in one step. */
const trimSlack = 1000

/** The maximum of entries that one push trims, so that a lowered limit does not stall the chain. */
const maxTrimmed = 5000

/** The maximum of unread entries that are counted per reader unless an exact count is requested. */
const mostCounted = 1000

const markOf = ({ hash, part }: Pick<Position, "hash" | "part">, added: number) => `${hash}:${part}:${added}:`

const positionOf = ({ number, hash, part, added, part_digest: stored }: HeadRow): Position => {
  const mark = markOf({ hash, part }, added)
  return { number, hash, part, ...(stored?.startsWith(mark) && { digest: stored.slice(mark.length) }) }
}

const conflict = (head: Position | undefined): Conflict => ({ _tag: "Conflict", head })

const entryOf = (row: EventRow): Entry => {
  const entry: Record<string, string> = {}
  for (const field of entryFields) {
    const value = field === "removed" ? row.removed === 1 : row[field]
    if (value !== null) entry[field] = String(value)
  }
  return entry as Entry
}

/** The identity of an entry: block hash, log index, removed. */
const identityOf = (row: EventRow) =>
  `${row["block_hash"]}:${row["log_index"]}:${row.removed === 1 ? "true" : "false"}`

type EventId = Omit<Acknowledged, "epoch">

const make = Effect.fnUntraced(function* (path: string, retention: Retention, limits: CallLimits) {
  const file = yield* SqliteFile.make(path)
  const { attempt, atomically } = file
  const sql = Statements.make(file)

  const head = (chain: ChainId): HeadRow | undefined => {
    const current = sql.headOf(chain)
    const version = current === undefined ? sql.journal(chain)?.version : current.version
    if ((version ?? 1) > journalVersion) throw new NewerVersion(version!)
    return current
  }

  /** The block from which on every entry is stored: see firstNumber in journal.lua. */
  const firstNumberOf = (chain: ChainId, { added, entries, number, start_number }: HeadRow): number => {
    if (added === 0 || entries > added) return start_number
    const first = sql.readAfter(chain, 0, 1)[0]
    if (first === undefined) return number + 1
    const isFirst =
      entries === added ||
      sql.recordAt(chain, first.block_number)?.first_id === first.id ||
      (first["log_index"] === 0 && first.removed === 0)
    return isFirst ? first.block_number : first.block_number + 1
  }

  /** How the stored head, window and entries of a chain contradict each other, if they do: see load.lua. */
  const inconsistency = (chain: ChainId, current: HeadRow | undefined, last: RecordRow | undefined) => {
    const { last: lastId } = sql.bounds(chain, chain)!
    if (current === undefined) {
      if (last !== undefined) return "it has records of blocks and no head"
      return lastId !== null && sql.journal(chain) === undefined ? "it has entries and no head" : undefined
    }
    const { added, final_number, hash, number, start_number } = current
    if (last === undefined) {
      if (number !== start_number - 1 && number !== final_number)
        return `its head is block ${number}, which is not final, and it has no records`
    } else if (last.number !== number || last.hash !== hash)
      return `its head is block ${number} and its last record is block ${last.number}`
    if (added > 0 && lastId === null) return "it has a head and no entries"
    return undefined
  }

  /** Keeps the fields of version 2 up to date. A journal of version 1 begins an epoch. */
  const complete = (chain: ChainId) => {
    const current = head(chain)
    if (current === undefined) return
    const first = firstNumberOf(chain, current)
    if (current.version === null) sql.createJournal(chain, randomUUID(), "begun", first)
    else if (current.first_number !== first) sql.setFirst(first, chain)
  }

  /**
   * The head, if it is the expected one and belongs to this filter. Rows that were deleted since the journal was loaded are
   * a conflict, so that it is loaded again.
   */
  const compare = (
    chain: ChainId,
    filter: string,
    expected: Position,
  ): HeadRow | Conflict | FilterChanged => {
    const current = head(chain)
    if (current === undefined) return conflict(undefined)
    if (current.filter !== filter) return { _tag: "FilterChanged", filter: current.filter }
    const position = positionOf(current)
    if (!samePosition(position, expected)) return conflict(position)
    return inconsistency(chain, current, sql.top(chain)) === undefined ? current : conflict(position)
  }

  /** Whether a push that conflicts was written before, by an earlier attempt or by another ingestor. */
  const isDuplicate = (chain: ChainId, head: Position, push: Push): boolean => {
    const next = afterPush(push)
    const known = sql.recordAt(chain, next.number)
    if (known === undefined || known.hash !== next.hash) return false
    if (head.hash !== next.hash || head.part === 0) return true
    return next.digest !== undefined && head.part === next.part && head.digest === next.digest
  }

  /** The pinned reader furthest behind, if there are enough entries to trim some. */
  const pinOf = (chain: ChainId, entries: number) => {
    const { maxLength } = retention
    return entries > maxLength + trimSlack && maxLength > 0 ? sql.lowestPin(chain, pinnedFor) : undefined
  }

  /** Whether a pinned reader holds entries that are needed for nothing else. */
  const isHeldBy = <Pin extends { readonly id: number }>(
    chain: ChainId,
    pin: Pin | undefined,
    length: number,
  ): pin is Pin =>
    pin !== undefined &&
    length > retention.maxLength + trimSlack &&
    (sql.oldestNeeded(chain)?.id ?? Infinity) > pin.id

  const releaseOf = (chain: ChainId, name: string) =>
    `DELETE FROM readers WHERE chain_id = ${chain} AND name = '${name.replaceAll("'", "''")}'`

  /** Trims, and stores whether publishing is paused: see `trim` in journal.lua. */
  const trimmed = (chain: ChainId, before: number): Trimmed => {
    const { backlog } = retention
    const pin = pinOf(chain, before)
    const dropped = drop(chain, before, pin?.id ?? null)
    const length = before - dropped
    const isHeld = isHeldBy(chain, pin, length)
    const isPaused = isHeld && length >= backlog * (sql.journal(chain)?.paused === 1 ? 0.9 : 1)
    sql.setPaused(isPaused ? 1 : 0, chain, isPaused ? 1 : 0)
    if (!isHeld) return { dropped, holder: undefined }
    const behind = sql.unread(chain, pin.id)!.entries
    return {
      dropped,
      holder: {
        reader: `reader:${pin.name}`,
        behind,
        length,
        paused: isPaused ? "backlog" : undefined,
        release: releaseOf(chain, pin.name),
      },
    }
  }

  /** Trims the oldest entries beyond the limit, up to the last one that a pinned reader has read. */
  const drop = (chain: ChainId, entries: number, pin: number | null): number => {
    const { maxLength } = retention
    if (maxLength === 0 || entries <= maxLength + trimSlack) return 0
    const below = Math.min(
      sql.oldestNeeded(chain)?.id ?? Number.MAX_SAFE_INTEGER,
      (pin ?? Number.MAX_SAFE_INTEGER - 1) + 1,
    )
    const last = sql.lastToTrim(chain, below, Math.min(entries - maxLength, maxTrimmed))?.id ?? null
    if (last === null) return 0
    sql.countMissed(last, chain, last)
    const { changes } = sql.trim(chain, last)
    sql.countTrimmed(changes, chain)
    complete(chain)
    return Number(changes)
  }

  /** Begins a journal. Entries of an earlier one count, so that they are trimmed. */
  const begin = (chain: ChainId, start: number, filter: string) => {
    sql.createHead(chain, start - 1, start, filter, start, sql.entryCount(chain)!.entries)
    complete(chain)
  }

  const lastEntry = (chain: ChainId): EventId | undefined => {
    const { last } = sql.bounds(chain, chain)!
    const row = last === null ? undefined : sql.eventAt(chain, last)
    return row && { id: String(row.id), identity: identityOf(row) }
  }

  const addedOf = (chain: ChainId, last: EventId | undefined, previous: EventId | undefined) => {
    const epoch = sql.journal(chain)?.epoch ?? ""
    return last && { added: { last: { ...last, epoch }, previous: previous && { ...previous, epoch } } }
  }

  const push = (chain: ChainId, filter: string, push: Push): PushResult => {
    if (push.expected.hash === "" && head(chain) === undefined) begin(chain, push.expected.number + 1, filter)
    // Checked before the head is compared: the pushes that follow in the pipeline must wait as well.
    if (head(chain)?.paused === 1) return { _tag: "Paused" }
    const current = compare(chain, filter, push.expected)
    if ("_tag" in current) {
      if (current._tag === "Conflict" && current.head && isDuplicate(chain, current.head, push)) {
        return { _tag: "Duplicate" }
      }
      return current
    }
    const next = afterPush(push)
    const start = current.start_number
    const first = push.blocks[0]
    const below = sql.top(chain)
    let unfinished: RecordRow | undefined
    if (below !== undefined) {
      if (current.part > 0) unfinished = below
      if (current.part > 0 || (below.count === 0 && below.number !== start)) sql.forget(chain, below.number)
    }
    let startHash = current.start_hash
    let appended = 0
    const previous = lastEntry(chain)
    let last: EventId | undefined
    for (const block of push.blocks) {
      let firstId = block === first && unfinished ? unfinished.first_id : 0
      let lastId = 0
      for (const log of block.logs) {
        lastId = Number(
          sql.append(
            chain,
            block.number,
            block.hash,
            log.txHash,
            log.index,
            log.contract,
            JSON.stringify(log.topics),
            log.data,
            block.timestamp,
            log.txIndex,
            block.traceparent ?? null,
          ).lastInsertRowid,
        )
        if (firstId === 0) firstId = lastId
      }
      const lastLog = block.logs.at(-1)
      if (lastLog !== undefined)
        last = { id: String(lastId), identity: `${block.hash}:${lastLog.index}:false` }
      appended += block.logs.length
      const count = block.logs.length + (block === first && unfinished ? unfinished.count : 0)
      if (block.number === start) startHash = block.hash
      if (count > 0 || block.number === start || block === push.blocks.at(-1)) {
        sql.record(chain, block.number, block.hash, block.parentHash, firstId, lastId, count)
      }
    }
    sql.moveHead(next.number, next.hash, next.part, startHash, appended, appended, chain)
    if (current.version === null || current.added === 0) complete(chain)
    const digest = next.digest === undefined ? "" : markOf(next, current.added + appended) + next.digest
    if (digest !== (current.part_digest ?? "")) sql.setDigest(digest, chain)
    if (push.final && next.part === 0) {
      sql.setFinalized(next.number, next.hash, chain)
      sql.forgetUpTo(chain, next.number)
    }
    trimmed(chain, current.entries + appended)
    return { _tag: "Pushed", ...addedOf(chain, last, previous) }
  }

  const pop = (chain: ChainId, filter: string, pop: Pop): PopResult => {
    const current = compare(chain, filter, pop.expected)
    if ("_tag" in current) return current
    const retracted = sql.top(chain)
    if (retracted === undefined) return conflict(positionOf(current))
    const most = Math.min(retracted.count, limits.logs)
    const left = retracted.count - most
    const from =
      left === 0
        ? retracted.first_id
        : (sql.firstToRetract(chain, retracted.first_id, retracted.last_id, most - 1)?.id ??
          retracted.first_id)
    const previous = lastEntry(chain)
    const removed = most === 0 ? 0 : Number(sql.appendRemovals(chain, from, retracted.last_id).changes)
    let position: Position = { number: retracted.number, hash: retracted.hash, part: -left }
    let startHash = current.start_hash
    if (left > 0) {
      sql.shorten(from - 1, left, chain, retracted.number)
    } else {
      sql.forget(chain, retracted.number)
      if (retracted.number === current.start_number) startHash = ""
      const below = sql.top(chain)
      position = below
        ? { number: below.number, hash: below.hash, part: 0 }
        : finalizedHead(journalOf(current, []))
    }
    sql.moveHead(position.number, position.hash, position.part, startHash, removed, removed, chain)
    if (current.part_digest) sql.setDigest("", chain)
    const last = removed === 0 ? undefined : lastEntry(chain)
    return {
      _tag: "Popped",
      removed,
      missing: most - removed,
      ...addedOf(chain, last, previous),
    }
  }

  const finalize = (chain: ChainId, filter: string, { expected, number, hash }: Finalize): FinalizeResult => {
    const current = compare(chain, filter, expected)
    if ("_tag" in current) return current
    // The finalized head never moves down: see finalize.lua.
    if (current.final_number !== null && number <= current.final_number) return { _tag: "Finalized" }
    const known = sql.recordAt(chain, number)
    const reachable = number < current.number || (number === current.number && current.part === 0)
    if (!reachable || (known !== undefined && known.hash !== hash)) return conflict(positionOf(current))
    sql.setFinalized(number, hash, chain)
    sql.forgetUpTo(chain, number)
    trimmed(chain, current.entries)
    return { _tag: "Finalized" }
  }

  /** Whether a known entry is lost, and was not trimmed: see epoch.lua. */
  const isLost = (chain: ChainId, { id, identity }: Acknowledged): boolean => {
    const found = sql.eventAt(chain, Number(id))
    if (found !== undefined) return identityOf(found) !== identity
    const { first } = sql.bounds(chain, chain)!
    if (first !== null) return Number(id) > first
    return (sql.highestEver()?.seq ?? 0) < Number(id)
  }

  const checkEpoch = (chain: ChainId, known: Known | undefined): EpochCheck => {
    const stored = head(chain)
    let { epoch } = sql.journal(chain) ?? {}
    let outcome: EpochCheck["outcome"] = "kept"
    const last = known?.last
    const past = sql.pastEpochs(chain).map(({ epoch }) => epoch)
    // An epoch that came before the known one: an older copy of the data, even if the entry is in it by now.
    const isOlder =
      last !== undefined && last.epoch !== "" && epoch !== last.epoch && known!.before.includes(epoch ?? "")
    if (stored === undefined && epoch === undefined) outcome = last === undefined ? "kept" : "emptied"
    else if (last !== undefined && (isOlder || isLost(chain, last))) {
      const isKnown = isOlder || last.epoch === "" || last.epoch === epoch
      outcome = isKnown ? "lost" : "new epoch"
      if (isKnown) {
        if (epoch !== undefined) {
          sql.keepEpoch(chain, epoch)
          sql.keepLastEpochs(chain)
          past.push(epoch)
        }
        epoch = randomUUID()
        sql.setEpoch(epoch, chain)
      }
    } else if (last !== undefined && last.epoch !== "" && last.epoch !== epoch) outcome = "new epoch"
    const entry = lastEntry(chain)
    return { outcome, known: { last: entry && { ...entry, epoch: epoch ?? "" }, before: past } }
  }

  const replaceFilter = (chain: ChainId, filter: string) => {
    const current = head(chain)
    if (current === undefined) return
    const since = current.part === 0 ? current.number + 1 : current.number
    sql.changeFilter(filter, since, current.part > 0 ? -current.part : current.part, chain)
    sql.setDigest("", chain)
    if (current.filter === filter) return
    for (const known of [current.filter, filter]) sql.forgetFilter(chain, known)
    sql.keepFilter(chain, current.filter)
    sql.keepLastFilters(chain)
  }

  const reset = (chain: ChainId, { from, filter, delete: all }: ResetOptions) => {
    head(chain)
    sql.deleteHead(chain)
    sql.forgetUpTo(chain, Number.MAX_SAFE_INTEGER)
    sql.deleteMissed(chain)
    sql.deleteFilters(chain)
    if (all) sql.deleteEvents(chain)
    sql.createJournal(chain, randomUUID(), "reset", from ?? 0)
    if (from !== undefined) begin(chain, from, filter)
  }

  const seek = (chain: ChainId, block: number): string | undefined => {
    let { first: low, last: high } = sql.bounds(chain, chain)!
    if (low === null || high === null) return undefined
    let after: number | undefined
    while (low <= high) {
      const middle: number = Math.floor((low + high) / 2)
      const found: EventRow | undefined = sql.readAfter(chain, middle - 1, 1)[0]
      if (found === undefined || found.block_number >= block) {
        high = middle - 1
      } else {
        after = found.id
        low = found.id + 1
      }
    }
    return after === undefined ? undefined : String(after)
  }

  return Store.of({
    description: `sqlite ${path}`,
    limits,
    // An empty transaction succeeds even in a read-only file, so this one writes.
    ping: () =>
      atomically("ping", () => file.exec(`PRAGMA user_version = ${sql.userVersion()!.user_version}`)),
    load: (chain) =>
      atomically("load", () => {
        const current = head(chain)
        const window = sql.records(chain)
        const why = inconsistency(chain, current, window.at(-1))
        if (why !== undefined) throw corruptJournal(chain, why)
        return current && journalOf(current, window)
      }),
    push: (chain, filter, move) => atomically("push", () => push(chain, filter, move)),
    pop: (chain, filter, move) => atomically("pop", () => pop(chain, filter, move)),
    finalize: (chain, filter, move) => atomically("finalize", () => finalize(chain, filter, move)),
    checkEpoch: (chain, known) => atomically("epoch check", () => checkEpoch(chain, known)),
    changeFilter: (chain, filter) => atomically("filter change", () => replaceFilter(chain, filter)),
    read: (chain, after, limit) =>
      attempt("read", () =>
        sql.readAfter(chain, Number(after ?? 0), limit).map((row) => ({
          id: String(row.id),
          entry: entryOf(row),
        })),
      ),
    seek: (chain, block) => attempt("seek", () => seek(chain, block)),
    stats: (chain, exactly = true) =>
      attempt("stats", () => {
        const { first, last } = sql.bounds(chain, chain)!
        const text = (id: number | null) => (id === null ? undefined : String(id))
        const current = head(chain)
        const { epoch, epoch_reason: reason, paused } = sql.journal(chain) ?? {}
        const entries = exactly || current === undefined ? sql.entryCount(chain)!.entries : current.entries
        const added = current?.added ?? 0
        const most = exactly ? -1 : mostCounted + 1
        const readers = sql.readersOf(most, chain).map(({ id, lag, ...reader }) => ({
          ...reader,
          id: String(id),
          lag: lag === most ? undefined : lag,
        }))
        const pin = pinOf(chain, entries)
        const lag = readers.find(({ name }) => name === pin?.name)?.lag
        const isHeld = isHeldBy(chain, pin, entries) && (lag ?? Infinity) > retention.maxLength
        return {
          entries,
          trimmed: Math.max(added - entries, 0),
          previous: Math.max(entries - added, 0),
          firstId: text(first),
          lastId: text(last),
          firstNumber: current?.first_number ?? undefined,
          epoch: epoch === undefined ? undefined : { token: epoch, reason: reason! },
          bytes: undefined,
          groups: [],
          readers,
          holder: isHeld
            ? { reader: `reader:${pin.name}`, lag, release: releaseOf(chain, pin.name) }
            : undefined,
          paused: paused === 1,
          aliveAgo: sql.lastHeartbeat(chain)?.ago,
        }
      }),
    refused: () => Effect.succeed([]),
    trim: (chain) =>
      atomically("trim", () => {
        const current = head(chain)
        const outcome = trimmed(chain, current?.entries ?? 0)
        complete(chain)
        if (current !== undefined) sql.writeHeartbeat(chain)
        return outcome
      }),
    reset: (chain, options) => atomically("reset", () => reset(chain, options)),
    info: attempt("info", () => {
      const { version, bytes } = sql.about()!
      const persistence = path === ":memory:" ? "none" : "write-ahead log, synchronous=NORMAL"
      return { version: `sqlite ${version}`, bytes, limit: 0, evictionPolicy: undefined, persistence }
    }),
  })
})

const journalOf = (row: HeadRow, records: ReadonlyArray<RecordRow>): Journal => ({
  head: positionOf(row),
  final:
    row.final_number === null || row.final_hash === null
      ? undefined
      : { number: row.final_number, hash: row.final_hash },
  start: { number: row.start_number, hash: row.start_hash },
  filter: row.filter,
  filterSince: row.filter_since,
  window: records.map(({ number, hash, parent, count }) => ({ number, hash, parentHash: parent, count })),
})

/**
 * A store in the file at `path` (`:memory:` for a database in memory).
 *
 * @param retention how much of each stream is kept
 * @param limits how much a move carries
 */
export const layer = (
  path: string,
  retention: Retention,
  limits: CallLimits = callLimits,
): Layer.Layer<Store, StoreError> =>
  Layer.effect(
    Store,
    // A database with tables of another program: its statements cannot be prepared.
    Effect.catchDefect(make(path, retention, limits), (cause) =>
      Effect.fail(storeError("open", path, cause)),
    ),
  )
