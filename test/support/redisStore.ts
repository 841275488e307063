/** Opens the Redis store on test servers. */
import { Context, Duration, Effect, Layer } from "effect"
import type { Scope } from "effect"
import type { RedisConfig } from "../../src/config/AppConfig.ts"
import { keeping } from "../../src/store/Retention.ts"
import type { Retention } from "../../src/store/Retention.ts"
import { callLimits } from "../../src/store/Journal.ts"
import type { CallLimits } from "../../src/store/Journal.ts"
import * as RedisStore from "../../src/store/redis/RedisStore.ts"
import { Store } from "../../src/store/Store.ts"
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
  return Effect.map(Layer.build(RedisStore.layer(options)), (context) => Context.get(context, Store))
}
