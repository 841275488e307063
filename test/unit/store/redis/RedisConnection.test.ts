import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { emptyHead } from "../../../../src/store/Journal.ts"
import { pushes } from "../../../../src/store/Pushes.ts"
import type { Push } from "../../../../src/store/Journal.ts"
import { reasonOf } from "../../../../src/store/redis/RedisErrors.ts"
import { blocks } from "../../../support/blocks.ts"
import * as RedisServer from "../../../support/RedisServer.ts"
import { openRedis, standalone } from "../../../support/redisStore.ts"

describe("RedisConnection", () => {
  // The messages of Redis 6.2.14 and 7.0.15.
  const said = [
    ["OOM command not allowed when used memory > 'maxmemory'.", "full"],
    ["READONLY You can't write against a read only replica.", "read-only"],
    ["-LOADING Redis is loading the dataset in memory", "loading"],
    ["NOPERM this user has no permissions to run the 'evalsha' command", "refused"],
    [
      "ERR Error running script (call to f_8a1c): @user_script:50: @user_script: 50: -OOM command not allowed when used memory > 'maxmemory'.",
      "full",
    ],
    [
      "ERR Error running script (call to f_8a1c): @user_script:61: -READONLY You can't write against a read only replica.",
      "read-only",
    ],
    [
      "ERR Error running script (call to f_8a1c): @user_script:61: WRONGTYPE Operation against a key holding the wrong kind of value",
      "corrupt",
    ],
    ["ERR Error running script (call to f_8a1c): @user_script:3: attempt to index a nil value", "refused"],
    ["connect ECONNREFUSED 127.0.0.1:6379", "unreachable"],
    [
      "ERR Error running script (call to f_8a1c): @user_script: 3: Unknown Redis command called from Lua script",
      "refused",
    ],
    ["@user_script: 3: Unknown Redis command called from Lua script", "refused"],
    ["@user_script: 290: The user executing the script can't run this command or subcommand", "refused"],
    // How Upstash reports that a quota of the plan is exhausted.
    ["ERR DB capacity quota exceeded", "full"],
    ["ERR max single record size exceeded", "full"],
    ["ERR max concurrent connections exceeded", "unreachable"],
    ["ERR max requests limit exceeded.", "refused"],
  ] as const
  for (const [message, reason] of said)
    it(`classifies "${message.slice(-60)}" as ${reason}`, () => {
      assert.strictEqual(reasonOf(message), reason)
    })

  it.live(
    "fails to connect when the database does not exist or may not be selected, and writes to no other one [G-119]",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start(["--databases", "4"])
        yield* Effect.promise(() =>
          server.client.call("ACL", "SETUSER", "confined", "on", ">secret", "~*", "+@all", "-select"),
        )
        const [move] = [...pushes(emptyHead(1), blocks(1, "a", [2]), false)] as [Push]
        const user = { username: "confined", password: Redacted.make("secret") }
        for (const [config, words] of [
          [standalone(server.port, { database: 99 }), /index is out of range/],
          [standalone(server.port, { database: 2, ...user }), /no permissions to run the 'select'/],
        ] as const) {
          const store = yield* openRedis(config)
          for (const operation of [store.ping(7), store.load(7), store.push(7, "none", move)]) {
            const error = yield* Effect.flip(
              operation as Effect.Effect<unknown, { readonly reason: string; readonly detail: string }>,
            )
            assert.strictEqual(error.reason, "refused")
            assert.match(error.detail, words)
          }
        }
        assert.strictEqual(yield* Effect.promise(() => server.client.dbsize()), 0)
        const allowed = yield* openRedis(standalone(server.port, { database: 2 }))
        yield* allowed.push(7, "none", move)
        assert.strictEqual(yield* Effect.promise(() => server.client.dbsize()), 0)
      }).pipe(Effect.scoped),
  )
})
