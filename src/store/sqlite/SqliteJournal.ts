/** The journal of each chain: each move is one transaction, which applies what Journal.ts computes. */
import { randomUUID } from "node:crypto"
import type { Block, ChainId } from "../../Domain.ts"
import { changesOf, isWritten, rejectionOf } from "../Journal.ts"
import type { CallLimits, Changes, Conflict, FilterChanged, Finalize, Move, Pop, Push } from "../Journal.ts"
import type { FinalizeResult, JournalStore, PopResult, PushResult } from "../JournalStore.ts"
import type { Epochs } from "./SqliteEpochs.ts"
import { corruptJournal } from "../StoreError.ts"
import { digestMark, journalOf } from "../StoredHead.ts"
import type { SqliteFile } from "./SqliteFile.ts"
import type { Heads, StoredState } from "./SqliteHeads.ts"
import type { SqliteRetention } from "./SqliteRetention.ts"
import type { Statements } from "./Statements.ts"

/** The first and the last entry of a block. */
type Range = readonly [first: number, last: number]

/** Appends the logs of a block. */
const append = (sql: Statements, chain: ChainId, block: Block): Range | undefined => {
  const { number, hash, timestamp, traceparent = null, abi, logs } = block
  let first: number | undefined
  let last = 0
  for (const log of logs) {
    const { txHash, index, contract, topics, data, txIndex } = log
    const values = [txHash, index, contract, JSON.stringify(topics), data, timestamp, txIndex] as const
    last = Number(sql.append(chain, number, hash, ...values, traceparent).lastInsertRowid)
    first ??= last
    if (abi !== undefined && log.event !== undefined) sql.appendDecoded(last, log.event, log.args ?? null)
  }
  return first === undefined ? undefined : [first, last]
}

/** Appends a removal for each of the entries of a block. Returns how many there are. */
const retract = (sql: Statements, chain: ChainId, from: number, last: number): number => {
  const { changes, lastInsertRowid } = sql.appendRemovals(chain, from, last)
  sql.copyDecoded(Number(lastInsertRowid) - Number(changes), chain, from, last)
  return Number(changes)
}

/**
 * Writes what a move changes beside the entries.
 *
 * @param appended how many entries the move has appended
 * @param ranges the entries of each block that it records, by hash; a partial block begins where it began
 */
const write = (
  sql: Statements,
  chain: ChainId,
  { row, top }: StoredState,
  { head, start, final, dropsTop, records }: Changes,
  appended: number,
  ranges: ReadonlyMap<string, Range | undefined> = new Map(),
) => {
  if (dropsTop) sql.forget(chain, top!.number)
  for (const { number, hash, parentHash, count } of records) {
    const [first, last] = ranges.get(hash) ?? [0, 0]
    sql.record(chain, number, hash, parentHash, hash === top?.hash ? top.first_id : first, last, count)
  }
  const added = row.added + appended
  sql.moveHead(head.number, head.hash, head.part, start.hash, row.entries + appended, added, chain)
  const digest = head.digest === undefined ? "" : digestMark({ ...head, added }) + head.digest
  if (digest !== (row.part_digest ?? "")) sql.setDigest(digest, chain)
  if (final === undefined) return
  sql.setFinalized(final.number, final.hash, chain)
  sql.forgetUpTo(chain, final.number)
}

/** Where another ingestor continues, it leaves out up to this many ids. */
const mostSkipped = 1000

/** Applies a move. What was deleted since the journal was loaded is a conflict, so that it is loaded again. */
const applierOf =
  ({ logs }: CallLimits) =>
  <Result>(
    stored: StoredState | undefined,
    filter: string,
    move: Move,
    apply: (stored: StoredState, changes: Changes) => Result,
  ): Result | Conflict | FilterChanged => {
    if (stored === undefined) return { _tag: "Conflict", head: undefined }
    const { journal, contradiction } = stored
    const rejection = rejectionOf(journal, filter, move)
    if (rejection !== undefined) return rejection
    if (contradiction !== undefined) return { _tag: "Conflict", head: journal.head }
    return apply(stored, changesOf(journal, move, logs))
  }

/**
 * The moves.
 *
 * @param limits how many logs one pop retracts
 * @param random 0 … 1, different for each ingestor
 */
const movesOf = (
  sql: Statements,
  { head, complete, stateOf, begin }: Heads,
  { lastEntry, addedSince }: Epochs,
  { trimmed }: SqliteRetention,
  limits: CallLimits,
  random: () => number,
) => {
  const writer = randomUUID()
  const applyMove = applierOf(limits)

  /**
   * Before a move appends entries. An older copy of the file hands out the same ids again: where two ingestors did not leave
   * different gaps, the last entry of one might be there again by chance, and its loss unnoticed.
   */
  const continueIds = (chain: ChainId) => {
    if (sql.setWriter(chain, writer).changes > 0) sql.skipIds(1 + Math.floor(random() * mostSkipped))
  }

  const push = (chain: ChainId, filter: string, push: Push): PushResult => {
    const { blocks, expected } = push
    if (expected.hash === "" && head(chain) === undefined) begin(chain, expected.number + 1, filter)
    const stored = stateOf(chain, push)
    // Checked before the head is compared: the pushes that follow in the pipeline must wait as well.
    if (stored?.row.paused === 1) return { _tag: "Paused" }
    const result = applyMove(stored, filter, push, (stored, changes): PushResult => {
      const { row } = stored
      // The digest of a part is written into what completes a journal of version 1.
      if (row.version === null) complete(chain)
      const previous = lastEntry(chain)
      continueIds(chain)
      const ranges = new Map(blocks.map((block) => [block.hash, append(sql, chain, block)]))
      const appended = blocks.reduce((sum, { logs }) => sum + logs.length, 0)
      write(sql, chain, stored, changes, appended, ranges)
      if (row.added === 0) complete(chain)
      const { abi = "" } = blocks[0]
      if (abi !== (row.abi ?? "")) sql.setAbi(abi, chain)
      trimmed(chain, row.entries + appended)
      return { _tag: "Pushed", ...addedSince(chain, previous) }
    })
    const isDuplicate = result._tag === "Conflict" && stored !== undefined && isWritten(stored.journal, push)
    return isDuplicate ? { _tag: "Duplicate" } : result
  }

  const pop = (chain: ChainId, filter: string, pop: Pop): PopResult =>
    applyMove(stateOf(chain, pop), filter, pop, (stored, changes): PopResult => {
      const { hash, first_id: first, last_id: last } = stored.top!
      const { retracted, records } = changes
      const isWhole = records.length === 0
      const from = isWhole ? first : (sql.firstToRetract(chain, first, last, retracted - 1)?.id ?? first)
      const previous = lastEntry(chain)
      continueIds(chain)
      const removed = retracted === 0 ? 0 : retract(sql, chain, from, last)
      write(sql, chain, stored, changes, removed, new Map([[hash, [first, from - 1]]]))
      return { _tag: "Popped", removed, missing: retracted - removed, ...addedSince(chain, previous) }
    })

  const finalize = (chain: ChainId, filter: string, finalize: Finalize): FinalizeResult =>
    applyMove(stateOf(chain, finalize), filter, finalize, (stored, changes): FinalizeResult => {
      if (changes.final !== undefined) {
        write(sql, chain, stored, changes, 0)
        trimmed(chain, stored.row.entries)
      }
      return { _tag: "Finalized" }
    })

  return { push, pop, finalize }
}

/** Whether a filter is older than that of the journal. @see JournalStore */
const isOutdated = (sql: Statements, chain: ChainId, filter: string, version: number | undefined) => {
  const stored = sql.configVersion(chain)?.version
  return version === undefined || version === stored
    ? sql.wasReplaced(chain, filter) !== undefined
    : stored !== undefined && version < stored
}

export const make = (
  sql: Statements,
  { atomically, exec }: SqliteFile,
  heads: Heads,
  epochs: Epochs,
  retention: SqliteRetention,
  limits: CallLimits,
  random: () => number,
): JournalStore["Service"] => {
  const { push, pop, finalize } = movesOf(sql, heads, epochs, retention, limits, random)
  const { complete, head, contradictionOf } = heads

  return {
    limits,
    // An empty transaction succeeds even in a read-only file, so this one writes.
    ping: () => atomically("ping", () => exec(`PRAGMA user_version = ${sql.userVersion()!.user_version}`)),
    load: (chain) =>
      atomically("load", () => {
        const current = head(chain)
        const rows = sql.records(chain)
        const why = contradictionOf(chain, current, rows.at(-1))
        if (why !== undefined) throw corruptJournal(chain, why)
        const window = rows.map(({ number, hash, parentHash, count }) => ({
          number,
          hash,
          parentHash,
          count,
        }))
        return current && journalOf(current, window)
      }),
    push: (chain, filter, move) => atomically("push", () => push(chain, filter, move)),
    pop: (chain, filter, move) => atomically("pop", () => pop(chain, filter, move)),
    finalize: (chain, filter, move) => atomically("finalize", () => finalize(chain, filter, move)),
    checkEpoch: (chain, known) => atomically("epoch check", () => epochs.checkEpoch(chain, known)),
    changeFilter: (chain, filter, description = "", configVersion) =>
      atomically("filter change", () => {
        const current = head(chain)
        if (current === undefined) return "changed"
        if (current.filter !== filter && isOutdated(sql, chain, filter, configVersion)) return "outdated"
        const { number, part } = current
        sql.changeFilter(filter, part === 0 ? number + 1 : number, part > 0 ? -part : part, chain)
        sql.setDigest("", chain)
        sql.describeFilter(chain, description)
        if (configVersion !== undefined) sql.setConfigVersion(chain, configVersion)
        if (current.filter === filter) return "changed"
        for (const known of [current.filter, filter]) sql.forgetFilter(chain, known)
        sql.keepFilter(chain, current.filter)
        sql.keepLastFilters(chain)
        return "changed"
      }),
    trim: (chain, filter = "") =>
      atomically("trim", () => {
        const current = head(chain)
        if (filter.startsWith(`${current?.filter} `)) sql.describeFilter(chain, filter)
        const outcome = retention.trimmed(chain, current?.entries ?? 0)
        complete(chain)
        if (current !== undefined) sql.writeHeartbeat(chain)
        return outcome
      }),
  }
}
