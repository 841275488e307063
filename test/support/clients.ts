/** Development nodes other than anvil, from npm, started as a developer would. */
import { Effect } from "effect"
import * as Traffic from "../../src/demo/Traffic.ts"
import * as Devnet from "./devnet.ts"
import * as RedisServer from "./RedisServer.ts"
import * as Service from "./Service.ts"

/** Starts the command of a package and returns the port once it listens. */
const launch = Effect.fnUntraced(function* (command: string, args: ReadonlyArray<string>, listens: RegExp) {
  const node = yield* Service.start({ entry: `node_modules/.bin/${command}`, args })
  const [, port] = yield* node.says(listens)
  return Number(port)
})

type Call = readonly [method: string, params: ReadonlyArray<unknown>]

/** How to start each node on a free port with the chain id of `devnet.ts`, and how to stop and resume its mining. */
const clients = {
  hardhat: {
    launch: launch(
      "hardhat",
      ["--config", "test/support/hardhat.config.js", "node", "--hostname", "127.0.0.1", "--port", "0"],
      /JSON-RPC server at http:\/\/127\.0\.0\.1:(\d+)/,
    ),
    stop: [["evm_setAutomine", [false]]] as ReadonlyArray<Call>,
    resume: [
      ["evm_mine", []],
      ["evm_setAutomine", [true]],
    ] as ReadonlyArray<Call>,
  },
  "ganache-cli": {
    // It does not support port 0.
    launch: Effect.flatMap(RedisServer.freePort, (port) =>
      launch(
        "ganache-cli",
        ["--chainId", String(Devnet.chainId), "--port", String(port)],
        /Listening on 127\.0\.0\.1:(\d+)/,
      ),
    ),
    stop: [["miner_stop", []]] as ReadonlyArray<Call>,
    resume: [["miner_start", []]] as ReadonlyArray<Call>,
  },
}

export type Name = keyof typeof clients
export const names = Object.keys(clients) as ReadonlyArray<Name>

/** A running node with the contract in block 1. By default, it mines a block for every transaction. */
export const start = Effect.fnUntraced(function* (name: Name) {
  const { launch, stop, resume } = clients[name]
  const url = `ws://127.0.0.1:${yield* launch}`
  const node = yield* Devnet.connect(url)
  const emitter = yield* Traffic.deploy(node)
  const call = ([method, params]: Call) => node.request(method, params)
  return {
    url,
    node,
    head: Devnet.headOf(node),
    /** Mines a block for each number of logs. */
    blocks: (...logs: ReadonlyArray<number>) =>
      Effect.forEach(logs, (count) => (count === 0 ? node.request("evm_mine", []) : emitter.emit(count))),
    /** Mines one block with a transaction for each number of logs. */
    block: (...logs: ReadonlyArray<number>) =>
      Effect.forEach(stop, call).pipe(
        Effect.andThen(Effect.forEach(logs, emitter.emit)),
        Effect.andThen(Effect.forEach(resume, call)),
      ),
    /** Runs an effect, then reverts the blocks that the node mined meanwhile. */
    thenRevert: <A, E, R>(work: Effect.Effect<A, E, R>) =>
      Effect.gen(function* () {
        const snapshot = yield* node.request("evm_snapshot", [])
        const made = yield* work
        yield* node.request("evm_revert", [snapshot])
        return made
      }),
  }
})
