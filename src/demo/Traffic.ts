/** Traffic on a development chain: a contract that emits `Transfer` logs, and a loop that calls it. */
import { Effect, Schedule } from "effect"
import type { Duration } from "effect"
import type { Hex } from "../Domain.ts"
import { hex } from "../endpoint/Decode.ts"
import type { Connection } from "../endpoint/Connection.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"

/**
 * Calldata: three words, N, data length, start. Emits N times `Transfer(caller, start+n, …)` as an ERC-20 would.
 *
 *     600035              n = calldata[0]
 *     5b 80156041 57      loop: if n == 0 goto end
 *     80 604035 01        v = n + calldata[0x40]
 *     80 6000 52          memory[0] = v
 *     33 7fddf2…b3ef      topic1 = caller, topic0 = Transfer(address,address,uint256)
 *     602035 6000 a3      log3(memory[0 … calldata[0x20]), topic0, topic1, v)
 *     6001 90 03 6003 56  n = n - 1, goto loop
 *     5b 00               end
 */
const runtime =
  "6000355b801560415780604035018060005233" +
  "7fddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef" +
  "6020356000a3600190036003565b00"

/** Copies the appended runtime code to memory and returns it. */
const initCode: Hex = `0x60${(runtime.length / 2).toString(16)}600c60003960${(runtime.length / 2).toString(16)}6000f3${runtime}`

const word = (value: number) => value.toString(16).padStart(64, "0")

/** A log of three topics and one word costs about 1 820 gas. */
const gasFor = (logs: number) => hex(60_000 + logs * 1_900)

type Node = Pick<Connection, "request">

export interface Emitter {
  /** Sends a transaction that emits this many logs, and returns its hash. */
  readonly emit: (logs: number) => Effect.Effect<Hex, EndpointError>
  /** The same transaction, without sending it. */
  readonly transaction: (logs: number) => Record<string, unknown>
}

const receipt = (node: Node, transaction: Hex) =>
  node.request("eth_getTransactionReceipt", [transaction]).pipe(
    Effect.map((receipt) => receipt as { readonly contractAddress: Hex } | null),
    Effect.repeat({ until: (receipt) => receipt !== null, schedule: Schedule.spaced("50 millis") }),
  )

/** Deploys the contract from the node's first account. `mine` mines the block if the node does not do it by itself. */
export const deploy = Effect.fnUntraced(function* (
  node: Node,
  mine: Effect.Effect<unknown, EndpointError> = Effect.void,
) {
  const [from] = (yield* node.request("eth_accounts", [])) as ReadonlyArray<Hex>
  const hash = (yield* node.request("eth_sendTransaction", [{ from, data: initCode, gas: "0x30d40" }])) as Hex
  yield* mine
  const deployed = yield* receipt(node, hash)
  let start = 0
  const transaction = (logs: number) => {
    const data = `0x${word(logs)}${word(32)}${word(start)}`
    start += logs
    return { from, to: deployed!.contractAddress, data, gas: gasFor(logs) }
  }
  return {
    transaction,
    emit: (logs: number) =>
      Effect.suspend(() => node.request("eth_sendTransaction", [transaction(logs)])).pipe(
        Effect.map((hash) => hash as Hex),
      ),
  } satisfies Emitter as Emitter
})

/** Calls the contract forever. Failures are ignored: a node may refuse a call in the middle of a reorg. */
export const keepCalling = (emitter: Emitter, logs: number, every: Duration.Input): Effect.Effect<never> =>
  emitter.emit(logs).pipe(Effect.ignore, Effect.andThen(Effect.sleep(every)), Effect.forever)

/** Replaces the last `depth` blocks of an anvil with new blocks that have logs too. */
export const reorg = (node: Node, emitter: Emitter, depth: number): Effect.Effect<void, EndpointError> => {
  const pairs = Array.from({ length: depth }, (_, i) => [emitter.transaction(3 + i), i])
  return Effect.asVoid(node.request("anvil_reorg", [depth, pairs]))
}
