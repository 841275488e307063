/** The fleet that is configured, if there is one. */
import { Effect, Layer } from "effect"
import { AppConfig } from "../config/AppConfig.ts"

/** Loads Effect's cluster only where a fleet is configured: 15 MB. */
export const layer = Layer.unwrap(
  Effect.gen(function* () {
    const { fleet, store } = yield* AppConfig
    if (fleet === undefined || store._tag === "Sqlite") return Layer.empty
    const { layer } = yield* Effect.promise(() => import("./RedisFleet.ts"))
    return layer(fleet, store)
  }),
)
