/** A real node behind a proxy that imitates known behaviour of providers. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { refusal } from "../support/providers.ts"
import * as RpcProxy from "../support/RpcProxy.ts"
import type { Changes } from "../support/RpcProxy.ts"
import * as Service from "../support/Service.ts"

/** Refuses logs without an address, like publicnode, and block receipts. */
const unwilling: Changes = {
  refuse: ({ method }) => {
    if (method === "eth_getLogs") return refusal("publicnode", "specify an address")
    if (method === "eth_getBlockReceipts") return { code: -32601, message: "the method does not exist" }
    return undefined
  },
}

/** Returns `[]` for a block that was just announced, twice per block (op-geth). */
const forgetful = (): Changes => {
  const times = new Map<string, number>()
  return {
    answer: ({ method }, result) => {
      if (method !== "eth_getLogs") return result
      const logs = result as ReadonlyArray<{ readonly blockHash: string }>
      for (const hash of new Set(logs.map(({ blockHash }) => blockHash)))
        times.set(hash, (times.get(hash) ?? 0) + 1)
      return logs.filter(({ blockHash }) => times.get(blockHash)! > 2)
    },
  }
}

/** Drops every third notification (erigon). */
const lossy = (): Changes => {
  let count = 0
  return { forwards: () => ++count % 3 !== 0 }
}

const quirks: ReadonlyArray<readonly [string, () => Changes]> = [
  ["refuses logs without an address, and receipts", () => unwilling],
  ["refuses them and loses every third notification", () => ({ ...unwilling, ...lossy() })],
  ["answers [] for a fresh block", forgetful],
  ["answers [] for a fresh block and loses every third notification", () => ({ ...forgetful(), ...lossy() })],
]

describe("the service on a real node", () => {
  for (const [title, changes] of quirks) {
    it.live(
      `stores the node's logs through reorgs and cut connections if it ${title}`,
      () =>
        Effect.gen(function* () {
          const path = join(yield* directory, "events.db")
          const store = yield* Devnet.openSqlite(path)
          const devnet = yield* Devnet.start()
          const proxy = yield* RpcProxy.start(devnet.anvil.url, changes())
          yield* devnet.block(3, 2)
          yield* Service.start({ env: Devnet.environment(proxy.url, { DATABASE_PATH: path }) })
          yield* Devnet.reached(store, devnet.head)
          for (let i = 1; i <= 5; i++) {
            for (let n = 0; n < 4; n++) {
              yield* devnet.block(2 + n, 1, 40)
              if (proxy.changes.forwards === undefined) yield* Devnet.reached(store, devnet.head)
            }
            yield* devnet.reorg(i)
            yield* devnet.block(i)
            if (i === 3) proxy.cut()
          }
          // The last notification may have been dropped; the next one is not.
          const { forwards, ...rest } = proxy.changes
          proxy.changes = rest
          yield* devnet.block(1)
          yield* Devnet.reached(store, devnet.head)
          const { replay } = yield* Devnet.assertEqual(store, devnet)
          assert.isAbove(replay.entries, 300)
          const asked = (method: string) => proxy.requests.get(method) ?? 0
          if (rest.refuse === undefined) {
            assert.strictEqual(asked("eth_getBlockReceipts"), 0)
          } else {
            // Two ranges and two blocks are refused, on two connections.
            assert.isAtMost(asked("eth_getLogs"), 4)
            assert.isAtLeast(asked("eth_subscribe"), 4, "heads and logs, on two connections")
            // About forty blocks come from the subscription; blocks announced before it are read receipt by receipt.
            if (forwards === undefined) assert.isBelow(asked("eth_getTransactionReceipt"), 40)
          }
        }).pipe(Effect.scoped),
      60_000,
    )
  }
})
