/** Whether replicas share the chains, and how often each says that it is present. */
import { Duration, Effect } from "effect"
import * as Codec from "./Codec.ts"
import type { RedisConfig, SqliteConfig } from "./StoreConfig.ts"
import { variable } from "./Variable.ts"
import type { Reader, Section } from "./Variable.ts"

export interface FleetConfig {
  readonly name: string
  readonly heartbeat: Duration.Duration
}

/** A replica that is silent for four seconds is gone: heartbeats must be more frequent. */
const longestHeartbeat = Duration.seconds(2)

const fleetName = Codec.kind("letters, digits and any of . _ -", (text) =>
  /^[\w.-]+$/.test(text) ? text : undefined,
)

const variables = {
  name: variable("FLEET", fleetName, {
    example: "main",
    meaning:
      "a name: all replicas with this name and the same chains share them, each chain followed by one replica; Redis only. Without it, this process follows all of `CHAINS`",
  }),
  heartbeat: variable("FLEET_HEARTBEAT", Codec.duration, {
    default: "500ms",
    meaning:
      "how often a replica of a fleet says that it is present, one command each; at most 2 s. Longer where commands cost money",
  }),
}

export const section: Section = { title: "Fleet", variables: Object.values(variables) }

/** The fleet of these variables, if there is one; what is wrong with them is in the reader's problems. */
export const readFleet = Effect.fnUntraced(function* (reader: Reader, store: RedisConfig | SqliteConfig) {
  const { name, heartbeat } = yield* reader.all(variables)
  if (name !== undefined && store._tag === "Sqlite")
    reader.problem("FLEET", "replicas share the chains through Redis: set REDIS_URL or REDIS_HOST, too")
  if (Duration.isGreaterThan(heartbeat, longestHeartbeat))
    reader.problem(
      "FLEET_HEARTBEAT",
      "expected at most 2s: a replica that is silent for 4 s is taken for gone",
    )
  return name === undefined ? undefined : ({ name, heartbeat } satisfies FleetConfig)
})
