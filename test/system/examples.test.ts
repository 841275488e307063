/** Behaviour of the example consumers that the README's commands do not cover. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { emptyHead } from "../../src/store/Journal.ts"
import { pushes } from "../../src/store/Pushes.ts"
import { blocks } from "../support/blocks.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import { python, shell } from "../support/shell.ts"

describe("an example consumer", () => {
  for (const [language, command] of [
    ["TypeScript", "node examples/consume.ts"],
    ["Python", `${python} examples/consume.py`],
  ] as const) {
    it.live(`in ${language} continues after an unacknowledged entry was trimmed [G-093]`, () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.start()
        const store = yield* openRedis(standalone(server.port))
        for (const push of pushes(emptyHead(1), blocks(1, "a", [2, 3]), false))
          yield* store.push(1, "none", push)
        const { client } = server
        yield* Effect.promise(() => client.xgroup("CREATE", "events:1", "my-app", "0"))
        yield* Effect.promise(() =>
          client.xreadgroup("GROUP", "my-app", "worker-1", "COUNT", 2, "STREAMS", "events:1", ">"),
        )
        yield* Effect.promise(() => client.xtrim("events:1", "MAXLEN", 4))
        const { says, output } = yield* shell(`${command} events:1`, { REDIS_URL: server.url })
        yield* says(/^4 logs$/m)
        assert.match(output(), /^\d+-\d+ was trimmed before it was acknowledged$/m)
        const [pending] = yield* Effect.promise(() => client.xpending("events:1", "my-app"))
        assert.strictEqual(pending, 0)
      }),
    )
  }
})
