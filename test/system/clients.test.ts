/** The service on development nodes other than anvil: the store equals the node's logs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import * as Clients from "../support/clients.ts"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { jsonFrom } from "../support/http.ts"
import * as Service from "../support/Service.ts"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 60_000)

const sum = (counts: ReadonlyArray<number>) => counts.reduce((total, count) => total + count, 0)

/** A node with history, an empty store, and a function that starts the service on both. */
const scenario = Effect.fnUntraced(function* (client: Clients.Name, history: ReadonlyArray<number>) {
  const node = yield* Clients.start(client)
  yield* node.blocks(...history)
  const path = join(yield* directory, "events.db")
  const store = yield* Devnet.openSqlite(path)
  const run = (variables: Record<string, string>, args: ReadonlyArray<string> = []) =>
    Service.start({ args, env: Devnet.environment(node.url, { DATABASE_PATH: path, ...variables }) })
  return { node, store, run, reached: Devnet.reached(store, node.head) }
})

// Concurrent, because one of the tests mostly waits.
describe.concurrent("the service on a real node", () => {
  for (const client of Clients.names) {
    test(
      `stores history, live blocks and the replacements after evm_revert: ${client}`,
      Effect.gen(function* () {
        const history = [3, 0, 1, 7, 0, 0, 2, 40, 1]
        const { node, store, run, reached } = yield* scenario(client, history)
        yield* run({ DEVNET_FINALITY: "depth" })
        yield* reached
        assert.strictEqual((yield* Devnet.assertEqual(store, node)).logs, sum(history))

        const live = [2, 0, 5]
        yield* node.blocks(...live)
        yield* reached

        // The first fork is longer at once, the second is shorter for a while.
        const reverted = [[1], [2, 0, 3, 1, 4]]
        const replacing = [4, 0]
        for (const blocks of reverted) {
          yield* node.thenRevert(Effect.andThen(node.blocks(...blocks), reached))
          yield* node.blocks(...replacing)
        }
        const last = [0, 6, 0, 1]
        yield* node.blocks(...last)
        yield* reached
        const { replay, logs } = yield* Devnet.assertEqual(store, node)
        assert.strictEqual(logs, sum([...history, ...live, ...replacing, ...replacing, ...last]))
        assert.strictEqual(replay.removed, sum(reverted.flat()))
      }),
    )
  }

  test(
    "halts when evm_revert goes below a final block with CONFIRMATIONS=finalized, and names the fix: hardhat",
    Effect.gen(function* () {
      const { node, store, run, reached } = yield* scenario("hardhat", [2])
      yield* node.block(1, 4, 2)
      const finalized = { DEVNET_CONFIRMATIONS: "finalized" }
      const service = yield* node.thenRevert(
        Effect.gen(function* () {
          yield* node.blocks(3, 1, 2)
          const service = yield* run(finalized)
          yield* reached
          return service
        }),
      )
      yield* node.blocks(1, 1, 1, 1)
      const [line] = yield* service.says(/halted: .*/)
      assert.match(line, /block 6 was final as .*, set DEVNET_FINALITY=depth\)/)
      const { body } = yield* jsonFrom(yield* service.port, "/ready")
      assert.include(JSON.stringify(body), "DEVNET_FINALITY=depth")
      service.kill("SIGTERM")
      yield* service.exit

      // The fix of the runbook.
      const reset = yield* run({}, ["reset", "--chain", "devnet", "--from", "0", "--delete", "--yes"])
      assert.strictEqual(yield* reset.exit, 0, reset.errors())
      yield* run({ DEVNET_FINALITY: "depth" })
      yield* reached
      yield* node.thenRevert(Effect.andThen(node.blocks(2, 2), reached))
      yield* node.blocks(1, 1, 1)
      yield* reached
      const { replay } = yield* Devnet.assertEqual(store, node)
      assert.strictEqual(replay.removed, 4)
    }),
  )

  test(
    "refuses, with a log line, blocks whose log indexes start at 0 in each transaction: ganache-cli",
    Effect.gen(function* () {
      const { node, store, run } = yield* scenario("ganache-cli", [1])
      yield* node.block(2, 1)
      const { number } = yield* node.head
      const service = yield* run({ DEVNET_START_BLOCK: String(number) })
      yield* service.says(/two logs of block 3 have the index 0: logs without an identity cannot be stored/)
      assert.isUndefined(yield* store.load(Devnet.chainId))
    }),
  )
})
