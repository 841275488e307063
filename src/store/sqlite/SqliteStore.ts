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
import { afterPush, callLimits, finalizedHead } from "../Journal.ts"
import type { CallLimits, Finalize, Pop, Position, Push } from "../Journal.ts"
import type { Retention } from "../Retention.ts"
import { corruptJournal, Store } from "../Store.ts"
import type { FinalizeResult, PopResult, PushResult, ResetOptions, StoreError } from "../Store.ts"

import { storeError } from "./SqliteErrors.ts"
import * as SqliteEpochs from "./SqliteEpochs.ts"
import type { EventId } from "./SqliteEpochs.ts"
import * as SqliteFile from "./SqliteFile.ts"
import * as SqliteHeads from "./SqliteHeads.ts"
import { conflict, journalOf, markOf, positionOf } from "./SqliteHeads.ts"
import * as SqliteRetention from "./SqliteRetention.ts"
import * as SqliteStats from "./SqliteStats.ts"
import * as Statements from "./Statements.ts"
import type { EventRow, RecordRow } from "./Statements.ts"

const entryOf = (row: EventRow): Entry => {
  const entry: Record<string, string> = {}
  for (const field of entryFields) {
    const value = field === "removed" ? row.removed === 1 : row[field]
    if (value !== null) entry[field] = String(value)
  }
  return entry as Entry
}

const make = Effect.fnUntraced(function* (path: string, retention: Retention, limits: CallLimits) {
  const file = yield* SqliteFile.make(path)
  const { attempt, atomically } = file
  const sql = Statements.make(file)
  const heads = SqliteHeads.make(sql)
  const { head, inconsistency, complete, compare, begin } = heads
  const { trimmed, delayingReader } = SqliteRetention.make(sql, heads, retention)
  const { lastEntry, addedOf, checkEpoch } = SqliteEpochs.make(sql, heads)
  const stats = SqliteStats.make(sql, heads, delayingReader)

  /** Whether a push that conflicts was written before, by an earlier attempt or by another ingestor. */
  const isDuplicate = (chain: ChainId, head: Position, push: Push): boolean => {
    const next = afterPush(push)
    const known = sql.recordAt(chain, next.number)
    if (known === undefined || known.hash !== next.hash) return false
    if (head.hash !== next.hash || head.part === 0) return true
    return next.digest !== undefined && head.part === next.part && head.digest === next.digest
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
    stats: (chain, exactly = true) => attempt("stats", () => stats(chain, exactly)),
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
