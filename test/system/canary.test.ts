/**
 * Secrets are set in every place where they can be configured, and providers repeat theirs in every error. None of them may
 * appear in logs, spans, metrics, HTTP responses or messages of failing commands.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode, Refused } from "../support/FakeNode.ts"
import { directory } from "../support/directory.ts"
import { fetchFrom } from "../support/http.ts"
import * as Otlp from "../support/OtlpReceiver.ts"
import * as RedisServer from "../support/RedisServer.ts"
import * as Service from "../support/Service.ts"

const canary = (what: string) => `canary-${what}-7f3a9c1e5b2d`

const names = ["path", "query", "user", "password", "http", "standby", "redis", "token", "header"] as const

const secrets = names.map(canary)

const assertClean = (where: string, text: string) => {
  for (const secret of secrets) {
    assert.isFalse(
      text.includes(secret),
      `${secret} in ${where}: ${text.slice(Math.max(text.indexOf(secret) - 200, 0)).slice(0, 400)}`,
    )
  }
}

describe("secrets", () => {
  it.live(
    "never appear in any output, although providers repeat them",
    () =>
      Effect.gen(function* () {
        const receiver = yield* Otlp.start()
        const redis = yield* RedisServer.start()
        const setPassword = (password: string) =>
          Effect.promise(() => redis.client.config("SET", "requirepass", password))
        yield* setPassword(canary("redis"))
        const chain = new FakeChain({ finality: 4 })
        const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
        const everything = `${secrets.join(" ")} https://x/${canary("path")}?key=${canary("query")}`
        // The endpoint works for a while, then refuses every request and repeats all keys in its errors.
        let refusing = false
        for (const node of [one, two]) {
          node.intercept = (method, _params, proceed) => {
            if (refusing && method !== "eth_chainId")
              throw new Refused(-32000, `your key ${everything}`, { everything })
            return proceed()
          }
        }
        const [first, second] = [yield* one.serve, yield* two.serve]
        const port = new URL(first).port
        const urls = [
          `ws://${canary("user")}:${canary("password")}@127.0.0.1:${port}/${canary("path")}?key=${canary("query")}`,
          `${second}/v2/${canary("standby")}`,
        ]
        const token = join(yield* directory, "token")
        writeFileSync(token, `${canary("token")}\n`)
        const env = {
          CHAINS: "devnet",
          DEVNET_CHAIN_ID: String(chain.id),
          DEVNET_WS_URL: urls.join(","),
          DEVNET_RPC_URL: `http://127.0.0.1:${port}/${canary("http")}`,
          DEVNET_START_BLOCK: "0",
          REDIS_URL: `redis://:${canary("redis")}@127.0.0.1:${redis.port}`,
          METRICS_TOKEN_FILE: token,
          OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
          OTEL_EXPORTER_OTLP_HEADERS: `authorization=${canary("header")}`,
          OTEL_LOGS_EXPORTER: "otlp",
          OTEL_METRIC_EXPORT_INTERVAL: "300",
          OTEL_BSP_SCHEDULE_DELAY: "200",
          OTEL_BLRP_SCHEDULE_DELAY: "200",
          LOG_LEVEL: "trace",
          LOG_FORMAT: "json",
        }
        chain.extend(3, 2, 1, 4, 2, 2, 1)
        const service = yield* Service.start({ env })
        const http = yield* service.port
        const authorised = { headers: { authorization: `Bearer ${canary("token")}` } }
        const status = Effect.map(fetchFrom(http, "/status", authorised), ({ text }) => text)
        const until = (pattern: RegExp) =>
          Effect.repeat(Effect.delay(status, "50 millis"), { until: (text) => pattern.test(text) })
        yield* until(/"stored":7/)
        for (const node of [one, two])
          node.broadcast(`{"jsonrpc":"2.0","error":{"code":-1,"message":"${everything}"}}`)
        yield* until(/an error without an id/)
        refusing = true
        chain.extend(1)
        yield* until(/your key/)
        for (const node of [one, two]) node.drop(1008)
        refusing = false
        yield* until(/"stored":8/)
        yield* setPassword("changed")
        yield* Effect.promise(() => redis.client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        chain.extend(1)
        yield* until(/"type":"store"/)
        yield* receiver.until(() => receiver.spans.length > 0 && receiver.logs.length > 0)

        for (const path of ["/", "/status", "/metrics", "/health", "/ready", "/nothing"]) {
          for (const options of [authorised, {}]) {
            const answer = yield* fetchFrom(http, path, options)
            assertClean(path, answer.text + JSON.stringify(answer.headers))
          }
        }
        service.kill("SIGTERM")
        yield* service.exit
        // The commands wait for an announced head.
        for (const node of [one, two]) {
          node.intercept = (method, _params, proceed) => {
            if (method === "eth_subscribe") setImmediate(() => chain.extend(1))
            return proceed()
          }
        }
        assertClean("the logs", service.output() + service.errors())
        assertClean("telemetry", receiver.text)
        assert.isAbove((service.output() + service.errors()).length, 500)

        for (const args of [
          ["check"],
          ["check", "--json"],
          ["status"],
          ["verify"],
          ["tail", "--from", "start"],
        ]) {
          const command = yield* Service.start({ env, args })
          yield* command.exit
          assertClean(args.join(" "), command.output() + command.errors())
        }
        // Error messages do not repeat invalid values either.
        const broken = {
          ...env,
          DEVNET_WS_URL: `htp://${canary("path")}`,
          REDIS_URL: `redis:/${canary("redis")}`,
        }
        const refused = yield* Service.start({
          env: { ...broken, OTEL_EXPORTER_OTLP_HEADERS: canary("header") },
        })
        assert.strictEqual(yield* refused.exit, 78)
        assertClean("what is wrong with the configuration", refused.output() + refused.errors())
      }).pipe(Effect.scoped),
    60_000,
  )
})
