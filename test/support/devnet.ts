/** A real anvil with a contract that emits logs, and comparisons of a store with it. */
import { assert } from "@effect/vitest"
import { Duration, Effect, Redacted, Schedule } from "effect"
import type { Scope } from "effect"
import * as Anvil from "../../src/demo/Anvil.ts"
import * as Traffic from "../../src/demo/Traffic.ts"
import { headerOf } from "../../src/endpoint/Decode.ts"
import * as WebSocketConnection from "../../src/endpoint/WebSocketConnection.ts"
import type { Connection } from "../../src/endpoint/Connection.ts"
import { Transport } from "../../src/endpoint/Socket.ts"
import type { Header } from "../../src/Domain.ts"
import * as SqliteStore from "../../src/store/sqlite/SqliteStore.ts"
import { keeping, openStore } from "./ingestor.ts"
import type { Client } from "./ingestor.ts"
import { judgeByNode } from "./oracle.ts"

export const chainId = 31337

export interface Devnet {
  readonly anvil: Anvil.Anvil
  readonly node: Connection
  /** Mines a block with this many logs in each of its transactions. */
  readonly block: (...logs: ReadonlyArray<number>) => Effect.Effect<void, unknown>
  readonly reorg: (depth: number) => Effect.Effect<void, unknown>
  readonly rollback: (depth: number) => Effect.Effect<unknown, unknown>
  readonly head: Effect.Effect<Header, unknown>
}

export const connect = (url: string, id = chainId): Effect.Effect<Connection, unknown, Scope.Scope> =>
  WebSocketConnection.connect(
    { id },
    { name: "anvil", url: Redacted.make(url), keyless: false },
    { requestTimeout: Duration.seconds(20), wsMaxPayload: 512 * 1024 * 1024 },
  ).pipe(Effect.provide(Transport.layerWebSocket))

/** The latest block of a node. */
export const headOf = (node: Connection) =>
  Effect.map(node.request("eth_getBlockByNumber", ["latest", false]), (block) => headerOf(block) as Header)

/** A node that mines only on request. */
export const start = Effect.fnUntraced(function* (args: ReadonlyArray<string> = [], id = chainId) {
  const anvil = yield* Anvil.start({ chainId: id, args })
  return yield* attach(anvil, undefined, id)
})

/** Operations on a running node, on which the contract may already be deployed. */
export const attach = Effect.fnUntraced(function* (
  anvil: Anvil.Anvil,
  deployed?: Traffic.Emitter,
  id = chainId,
) {
  const node = yield* connect(anvil.url, id)
  const mine = node.request("evm_mine", [])
  const emitter = deployed ?? (yield* Traffic.deploy(node, mine))
  const send = (logs: number) =>
    Effect.suspend(() => node.request("eth_sendTransaction", [emitter.transaction(logs)]))
  return {
    anvil,
    node,
    emitter,
    block: (...logs) => Effect.andThen(Effect.forEach(logs, send), Effect.asVoid(mine)),
    reorg: (depth) => Traffic.reorg(node, emitter, depth),
    rollback: (depth) => node.request("anvil_rollback", [depth]),
    head: headOf(node),
  } satisfies Devnet & { readonly emitter: Traffic.Emitter }
})

/** The environment of a service that follows this node. */
export const environment = (
  url: string,
  variables: Readonly<Record<string, string>>,
): Record<string, string> => ({
  CHAINS: "devnet",
  DEVNET_CHAIN_ID: String(chainId),
  DEVNET_WS_URL: url,
  DEVNET_START_BLOCK: "0",
  ...variables,
})

export const openSqlite = (path: string): Effect.Effect<Client, unknown, Scope.Scope> =>
  openStore(SqliteStore.layer(path, keeping(0)))

/** Waits until the store has the node's head. */
export const reached = (
  store: Client,
  head: Effect.Effect<Header, unknown>,
  within: Duration.Input = "30 seconds",
) =>
  Effect.gen(function* () {
    const { number, hash } = yield* head
    const journal = yield* Effect.orElseSucceed(store.load(chainId), () => undefined)
    return journal?.head.number === number && journal.head.hash === hash && journal.head.part === 0
  }).pipe(
    Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutOrElse({
      duration: within,
      orElse: () => Effect.die(new Error("the store did not reach the node's head in time")),
    }),
  )

/** Asserts that the journal has no fault and replays to what the node has. */
export const assertEqual = Effect.fnUntraced(function* (
  store: Client,
  { node, head }: Pick<Devnet, "node" | "head">,
) {
  const { logs, verdict } = yield* judgeByNode(store, chainId, node, (yield* head).number)
  const { lost, doubled, faults, replay } = verdict
  assert.deepStrictEqual({ lost, doubled, faults }, { lost: 0, doubled: 0, faults: [] })
  return { replay, logs }
})
