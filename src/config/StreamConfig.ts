/** How streams are called, and how much of each is kept. */
import { Effect } from "effect"
import * as Codec from "./Codec.ts"
import type { RedisConfig, SqliteConfig } from "./StoreConfig.ts"
import { variable } from "./Variable.ts"
import type { Reader, Section } from "./Variable.ts"

/** How much of each stream is kept. */
export interface Retention {
  /** About how many entries are kept in any case; 0 keeps all. */
  readonly maxLength: number
  /** The consumer groups that are pinned; `*`: all. */
  readonly groups: ReadonlyArray<string>
  /** How many entries the stream may hold for a pinned reader before publishing pauses. */
  readonly backlog: number
}

const streamPrefix = Codec.kind("letters, digits and any of : . _ -", (text) =>
  /^[\w:.-]+$/.test(text) ? text : undefined,
)

const streams = {
  prefix: variable("STREAM_PREFIX", streamPrefix, {
    default: "events",
    meaning: "streams are `<prefix>:<chain id>`",
  }),
  maxLength: variable("STREAM_MAXLEN", Codec.count(), {
    default: "1000000",
    meaning:
      "entries kept per chain, approximately, 0.6 to 1.7 kB each in Redis; 0 keeps all. `docker-compose.yml` sets `200000`, which fits into its Redis of 3 GB",
  }),
  groups: variable("STREAM_GROUPS", Codec.list(Codec.text), {
    example: "my-app",
    meaning:
      "pinned consumer groups, whose unread entries are not trimmed: comma-separated names, or `*` for all; Redis only",
  }),
  backlog: variable("STREAM_BACKLOG", Codec.count(1), {
    shownDefault: "4 × `STREAM_MAXLEN`",
    example: "4000000",
    meaning: "entries up to which a stream grows for pinned readers; then publishing to it pauses",
  }),
}

export const section: Section = { title: "Streams", variables: Object.values(streams) }

/** The streams of these variables; what is wrong with them is in the reader's problems. */
export const readStreams = Effect.fnUntraced(function* (reader: Reader, store: RedisConfig | SqliteConfig) {
  const { groups = [], maxLength, prefix, backlog = 4 * maxLength } = yield* reader.all(streams)
  if (backlog < maxLength)
    reader.problem("STREAM_BACKLOG", `expected at least STREAM_MAXLEN, which is ${maxLength}, got ${backlog}`)
  if (groups.length > 0 && store._tag === "Sqlite")
    reader.problem(
      "STREAM_GROUPS",
      "consumer groups are of Redis, and the store is SQLite: set REDIS_URL, or leave it out",
    )
  if (groups.includes("*") && groups.length > 1)
    reader.problem("STREAM_GROUPS", "expected names of groups, or * alone for all of them")
  const retention: Retention = { maxLength, groups, backlog }
  return { streamPrefix: prefix, retention }
})
