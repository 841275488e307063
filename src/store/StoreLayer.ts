/** The store that is configured: a row for each kind of store. */
import { Effect, Layer } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import * as RedisStore from "./redis/RedisStore.ts"
import * as SqliteStore from "./sqlite/SqliteStore.ts"

/** The configured store. */
export const layer = Layer.unwrap(
  Effect.map(AppConfig, ({ store, streamPrefix, retention }) =>
    store._tag === "Sqlite"
      ? SqliteStore.layer(store.path, retention)
      : RedisStore.layer({ config: store, prefix: streamPrefix, retention }),
  ),
)
