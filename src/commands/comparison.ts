/** Compares what a journal holds with what a node says now. */
import { Effect } from "effect"
import type { ChainId, Filter } from "../Domain.ts"
import { hex, logsOf } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import type { Connection } from "../endpoint/Endpoint.ts"
import { EndpointError, Malformed } from "../endpoint/EndpointError.ts"
import { pieces } from "../feed/Canonical.ts"
import { logParams } from "../feed/Filter.ts"
import { digest, Replay } from "../store/Replay.ts"
import type { Store } from "../store/Store.ts"

export interface Comparison {
  /** Logs of the node. */
  readonly logs: number
  /** Identities (`block hash:log index`) that the node has and the journal lacks, … */
  readonly missing: ReadonlyArray<string>
  /** … lacks because its oldest entries were trimmed, … */
  readonly trimmed: number
  /** … that only the journal has, … */
  readonly extra: ReadonlyArray<string>
  /** … and that both have with other contents. */
  readonly different: ReadonlyArray<string>
}

/** Blocks that are asked for at once. */
const width = 200

const pageSize = 1000

const digestOf = (log: PlacedLog): string =>
  digest({
    block_number: String(log.blockNumber),
    tx_hash: log.txHash,
    contract: log.contract,
    topics: JSON.stringify(log.topics),
    data: log.data,
    tx_index: String(log.txIndex),
  })

/** Replays a journal from an id on; from its beginning without one. */
export const replay = Effect.fnUntraced(function* (
  store: Pick<Store["Service"], "read">,
  chain: ChainId,
  after?: string,
  fromTheBeginning = after === undefined,
) {
  const replay = new Replay(fromTheBeginning)
  let last = after
  for (;;) {
    const page = yield* store.read(chain, last, pageSize)
    if (page.length === 0) return replay
    for (const stored of page) replay.apply(stored)
    last = page.at(-1)!.id
  }
})

/**
 * Diffs the blocks `from … to` of a replayed journal against `eth_getLogs`. `someTrimmed`: the journal has lost its oldest
 * entries, so what the node has before the first entry that is left is not missing.
 */
export const compare = Effect.fnUntraced(function* (
  replay: Replay,
  node: Pick<Connection, "name" | "request">,
  chain: { readonly id: ChainId; readonly filter: Filter },
  from: number,
  to: number,
  someTrimmed = false,
) {
  const ours = new Map<string, string>()
  for (const { number, hash, logs } of replay.blocks) {
    if (number < from || number > to) continue
    for (const { index, digest } of logs) ours.set(`${hash}:${index}`, digest)
  }
  const { first } = replay
  const isTrimmed = (log: PlacedLog) =>
    someTrimmed &&
    (first === undefined ||
      log.blockNumber < Number(first.block_number) ||
      (log.blockHash === first.block_hash && log.index < Number(first.log_index)))

  const missing: Array<string> = []
  const different: Array<string> = []
  let logs = 0
  let trimmed = 0
  for (const [start, end] of pieces(from, to, () => width)) {
    const params = [{ ...logParams(chain.filter), fromBlock: hex(start), toBlock: hex(end) }]
    const answer = logsOf(yield* node.request("eth_getLogs", params))
    if (answer instanceof Malformed) return yield* new EndpointError({ endpoint: node.name, reason: answer })
    for (const log of answer) {
      logs++
      const id = `${log.blockHash}:${log.index}`
      const known = ours.get(id)
      if (known === undefined && isTrimmed(log)) trimmed++
      else if (known === undefined) missing.push(id)
      else if (known !== digestOf(log)) different.push(id)
      ours.delete(id)
    }
  }
  return { logs, missing, trimmed, different, extra: [...ours.keys()] } satisfies Comparison as Comparison
})
