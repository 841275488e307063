/**
 * What a store must hold, derived from the journal and the node, without the code under test.
 *
 * Read from the beginning: no identity is added twice without a removal between, a removal retracts the top of the stack
 * exactly and in reverse order, blocks and logs rise. What remains is, log by log, what the node has. If all blocks that
 * ever existed are known, the retracted ones are compared, too.
 */
import { assert } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { compare, digestOf, replay } from "../../src/cli/comparison.ts"
import type { RpcClient } from "../../src/endpoint/RpcClient.ts"
import { identity } from "../../src/Domain.ts"
import type { Entry, Hex } from "../../src/Domain.ts"
import { callLimits } from "../../src/store/Journal.ts"
import { Replay } from "../../src/store/Replay.ts"
import type { Stored } from "../../src/store/Entries.ts"
import type { FakeBlock, FakeChain } from "./FakeChain.ts"
import type { Client } from "./ingestor.ts"

export const replayOf = (store: Client, chain: number): Effect.Effect<Replay, unknown> => replay(store, chain)

/** A block on the stack of a journal, and how many of its logs are written. */
interface StackedBlock {
  readonly block: FakeBlock
  count: number
  retracting: boolean
}

/** Only a block that takes several calls may be partially written, and only whole calls of it. */
const isHalfWritten = ({ block, count }: StackedBlock, logsPerCall: number | "any") =>
  count < block.logs.length &&
  (logsPerCall === "any" || (block.logs.length > logsPerCall && count % logsPerCall === 0))

const isTrue = (entry: Entry, chain: number, { header, logs }: FakeBlock, position: number) => {
  const log = logs[position]
  return (
    log !== undefined &&
    entry.chain_id === String(chain) &&
    entry.block_number === String(header.number) &&
    entry.tx_hash === log.txHash &&
    entry.log_index === String(log.index) &&
    entry.contract === log.contract &&
    entry.topics === JSON.stringify(log.topics) &&
    entry.data === log.data &&
    entry.timestamp === String(header.timestamp) &&
    entry.tx_index === String(log.txIndex)
  )
}

/**
 * The faults of a journal at any time, not only at its end. Each entry, also one that is retracted later, must be a log of a
 * block that the chain once had. A block must have all of its logs, in order, before the next one begins or it is retracted
 * itself. No block with logs may be missing between two others.
 *
 * @param chain knows every block that it ever made
 * @param entries the whole journal of a chain, nothing trimmed
 * @param start the block at which the journal begins
 * @param logsPerCall how many logs a part of a block has; "any" if pushes become smaller after a timeout
 * @param excused blocks of which logs may be missing: a node omitted them undetectably
 */
export const faultsOf = (
  chain: Pick<FakeChain, "id" | "byHash">,
  entries: Iterable<Stored>,
  start = 0,
  logsPerCall: number | "any" = callLimits.logs,
  excused: ReadonlySet<Hex> = new Set(),
): ReadonlyArray<string> => {
  const faults: Array<string> = []
  const stack: Array<StackedBlock> = []
  const isExcused = ({ header }: FakeBlock) => excused.has(header.hash)
  const isWhole = ({ block, count }: StackedBlock) => count === block.logs.length || isExcused(block)
  const isRight = (entry: Entry, block: FakeBlock, position: number) =>
    isExcused(block)
      ? block.logs.some((_, at) => isTrue(entry, chain.id, block, at))
      : isTrue(entry, chain.id, block, position)

  const check = ({ entry }: Stored): string | undefined => {
    const block = chain.byHash(entry.block_hash as Hex)
    if (block === undefined) return "is of a block that never existed"
    const top = stack.at(-1)
    if (entry.removed === "true") {
      if (top?.block !== block) return "is not of the top block"
      const retractedTooEarly = !top.retracting && !isWhole(top) && !isHalfWritten(top, logsPerCall)
      top.retracting = true
      top.count--
      if (top.count === 0) stack.pop()
      if (retractedTooEarly) return `retracts a block that has ${top.count + 1} of ${block.logs.length} logs`
      return isRight(entry, block, top.count) ? undefined : "differs from the chain"
    }
    let fault: string | undefined
    if (top?.block !== block) {
      fault = begin(block, top)
      stack.push({ block, count: 0, retracting: false })
    } else if (top.retracting) fault = "is added to a block that is being retracted"
    const current = stack.at(-1)!
    const fits = isRight(entry, block, current.count)
    current.count++
    return fault ?? (fits ? undefined : "differs from the chain")
  }

  /** The fault of a block as the successor of the current top, if any. */
  const begin = (block: FakeBlock, top: StackedBlock | undefined): string | undefined => {
    if (top !== undefined && (top.retracting || !isWhole(top)))
      return `comes while block ${top.block.header.number} has ${top.count} of ${top.block.logs.length} logs`
    const bottom = top?.block.header.number ?? start - 1
    let below = chain.byHash(block.header.parentHash)
    for (; below !== undefined && below.header.number > bottom; below = chain.byHash(below.header.parentHash))
      if (below.logs.length > 0 && !isExcused(below))
        return `comes before the logs of block ${below.header.number}`
    return top === undefined || below === top.block ? undefined : `is not on top of block ${bottom}`
  }

  for (const stored of entries) {
    const fault = check(stored)
    const kind = stored.entry.removed === "true" ? "removal" : "entry"
    if (fault !== undefined) faults.push(`${stored.id}: the ${kind} of ${identity(stored.entry)} ${fault}`)
  }
  const top = stack.at(-1)
  if (top !== undefined && !top.retracting && !isWhole(top) && !isHalfWritten(top, logsPerCall))
    faults.push(
      `at the end block ${top.block.header.number} has ${top.count} of ${top.block.logs.length} logs`,
    )
  return faults
}

/** The difference between a journal and the expected one: lost, duplicated and wrong logs. */
export interface Verdict {
  readonly lost: number
  /** Surplus logs: duplicates, or not on the chain. */
  readonly doubled: number
  /** Those of them that are not on the chain. */
  readonly extra: number
  /** Logs of the chain with other field values. */
  readonly wrong: number
  readonly faults: ReadonlyArray<string>
  readonly replay: Replay
}

/**
 * Compares a journal with a chain in memory.
 *
 * @param chain with the logs that match the filter
 * @param start the block at which the journal begins
 * @param throughout whether every entry must be true, and not only the final state: `false` when the service accepted false
 *   data that the audit had to correct
 * @param excused blocks of which logs may be missing for a while
 * @param forgiven those of them that may stay wrong: no endpoint could audit them, which is counted
 * @param logsPerCall how many logs a part of a block has; "any" if pushes become smaller after a timeout
 */
export const judge = Effect.fnUntraced(function* (
  store: Client,
  chain: Pick<FakeChain, "id" | "byHash" | "blocks">,
  start = 0,
  throughout = true,
  excused: ReadonlySet<Hex> = new Set(),
  forgiven: ReadonlySet<Hex> = new Set(),
  logsPerCall: number | "any" = store.limits.logs,
) {
  const entries = yield* Stream.runCollect(store.after(chain.id))
  const replay = new Replay()
  for (const stored of entries) replay.apply(stored)
  const isJudged = ({ hash }: { readonly hash: string }) => !forgiven.has(hash as Hex)
  const judged = chain.blocks(start).filter(isJudged)
  const expected = judged.flatMap(({ number, hash, timestamp, logs }) =>
    logs.map((log) => ({
      id: `${number}/${hash}:${log.index}`,
      digest: digestOf(number, log),
      rest: `${timestamp} `,
    })),
  )
  const found = replay.blocks
    .filter(isJudged)
    .flatMap(({ number, hash, logs }) =>
      logs.map(({ index, digest, rest }) => ({ id: `${number}/${hash}:${index}`, digest, rest })),
    )
  const byId = (logs: typeof expected) => new Map(logs.map((log) => [log.id, JSON.stringify(log)]))
  const [have, want] = [byId(found), byId(expected)]
  const extra = [...have.keys()].filter((id) => !want.has(id)).length
  const faults = [
    ...replay.faults,
    ...(throughout ? faultsOf(chain, entries, start, logsPerCall, excused) : []),
  ]
  if (faults.length === 0 && JSON.stringify(found) !== JSON.stringify(expected)) {
    const first = expected.findIndex((log, i) => JSON.stringify(log) !== JSON.stringify(found[i]))
    faults.push(`expected ${JSON.stringify(expected[first])}, found ${JSON.stringify(found[first])}`)
  }
  return {
    lost: [...want.keys()].filter((id) => !have.has(id)).length,
    doubled: found.length - have.size + extra,
    extra,
    wrong: [...want].filter(([id, log]) => have.has(id) && have.get(id) !== log).length,
    faults,
    replay,
  } satisfies Verdict as Verdict
})

/** Asserts that the journal has no fault and replays to the chain in memory. The parameters are those of `judge`. */
export const assertComplete = Effect.fnUntraced(function* (
  store: Client,
  chain: FakeChain,
  start = 0,
  throughout = true,
) {
  const { lost, doubled, faults, replay } = yield* judge(store, chain, start, throughout)
  assert.deepStrictEqual({ lost, doubled, faults }, { lost: 0, doubled: 0, faults: [] })
  return replay
})

/** Compares a journal with a real node. */
export const judgeByNode = Effect.fnUntraced(function* (
  store: Client,
  chain: number,
  node: RpcClient,
  to: number,
) {
  const replay = yield* replayOf(store, chain)
  const found = yield* compare(replay, node, { id: chain, filter: { addresses: [], topics: [] } }, 0, to)
  return {
    logs: found.logs,
    verdict: {
      lost: found.missing.length,
      doubled: found.extra.length,
      extra: found.extra.length,
      wrong: found.different.length,
      faults: [...replay.faults, ...found.different.map((id) => `${id} has other contents`)],
      replay,
    } satisfies Verdict as Verdict,
  }
})
