/** Opens the Redis store on test servers. */
import { Context, Duration, Effect, Layer, Logger } from "effect"
import type { Scope } from "effect"
import { AppConfig, fromVariables } from "../../src/config/AppConfig.ts"
import type { RedisConfig } from "../../src/config/AppConfig.ts"
import { Status } from "../../src/observability/Status.ts"
import * as StorePoller from "../../src/observability/StorePoller.ts"
import type { Retention } from "../../src/store/Retention.ts"
import { callLimits } from "../../src/store/Journal.ts"
import type { CallLimits } from "../../src/store/Journal.ts"
import * as RedisStore from "../../src/store/redis/RedisStore.ts"
import { contextOf } from "../../src/store/Store.ts"
import { keeping, openStore } from "./ingestor.ts"
import type { Client } from "./ingestor.ts"

export const standalone = (port: number, overrides: Partial<RedisConfig> = {}): RedisConfig => ({
  _tag: "Redis",
  mode: "standalone",
  nodes: [{ host: "127.0.0.1", port }],
  tls: false,
  caFile: undefined,
  username: undefined,
  password: undefined,
  database: 0,
  sentinelMaster: undefined,
  certFile: undefined,
  keyFile: undefined,
  sentinelUsername: undefined,
  sentinelPassword: undefined,
  renewed: undefined,
  ...overrides,
})

export const openRedis = (
  config: RedisConfig,
  prefix = "events",
  retention: number | Retention = 0,
  timeout: Duration.Input = "2 seconds",
  limits: CallLimits = callLimits,
): Effect.Effect<Client, never, Scope.Scope> => {
  const options = {
    config,
    prefix,
    retention: typeof retention === "number" ? keeping(retention) : retention,
    timeout: Duration.fromInputUnsafe(timeout),
    limits,
  }
  return openStore(RedisStore.layer(options))
}

/**
 * Polls a store as the service does. Returns the status that the polls update, and what they log.
 *
 * @param url the URL of its Redis
 * @param ids the ids of the chains, by name
 */
export const pollStore = Effect.fnUntraced(function* (
  store: Client,
  url: string,
  ids: Readonly<Record<string, number>>,
  variables: Readonly<Record<string, string | undefined>> = {},
) {
  const config = yield* fromVariables({
    CHAINS: Object.keys(ids).join(","),
    ...Object.fromEntries(
      Object.entries(ids).flatMap(([name, id]) => [
        [`${name.toUpperCase()}_CHAIN_ID`, String(id)],
        [`${name.toUpperCase()}_WS_URL`, "ws://node"],
      ]),
    ),
    REDIS_URL: url,
    ...variables,
  })
  const logged: Array<unknown> = []
  const layer = StorePoller.layer.pipe(
    Layer.provideMerge(Status.layer),
    Layer.provide(Layer.succeedContext(contextOf(store))),
    Layer.provide(Layer.succeed(AppConfig, config)),
    Layer.provide(Logger.layer([Logger.make(({ message }) => void logged.push(message))])),
  )
  const status = Context.get(yield* Layer.build(layer), Status)
  return { status, logged }
})
