/** The store on Redis Streams. */
import { Effect, Layer } from "effect"
import type { Duration } from "effect"
import { randomUUID } from "node:crypto"
import type { RedisConfig } from "../../config/AppConfig.ts"
import { callLimits } from "../Journal.ts"
import type { CallLimits } from "../Journal.ts"
import type { Retention } from "../Retention.ts"
import { contextOf } from "../Store.ts"
import type { Contracts } from "../Store.ts"
import type { StoreAdmin } from "../StoreAdmin.ts"
import { refusedOf } from "./CommandCheck.ts"
import * as RedisChains from "./RedisChains.ts"
import * as RedisEntries from "./RedisEntries.ts"
import { isWithheld } from "./RedisErrors.ts"
import { infoOf, infos, withheldInfo } from "./RedisInfo.ts"
import * as RedisJournal from "./RedisJournal.ts"
import { statsOf } from "./RedisStats.ts"
import type { StatsReply } from "./RedisStats.ts"

export interface RedisStoreOptions {
  readonly config: RedisConfig
  /** Streams are `<prefix>:<chain id>`. */
  readonly prefix: string
  /** How much of each stream is kept. */
  readonly retention: Retention
  /** For connecting, and for one command (default 5 s). */
  readonly timeout?: Duration.Duration
  /** How much a move carries. */
  readonly limits?: CallLimits
}

const adminOf = (
  { command, commandOf, streamOf, keyOf, keysOf, script }: RedisChains.RedisChains,
  { config, prefix, retention }: RedisStoreOptions,
): StoreAdmin["Service"] => ({
  description: `redis ${config.nodes.map(({ host, port }) => `${host}:${port}`).join(",")} ${prefix}:*`,
  stats: (chain) =>
    Effect.map(
      commandOf(chain)(
        "stats",
        (client) =>
          client.stats(...keysOf(chain), RedisChains.retentionArg(retention)) as Promise<StatsReply>,
      ),
      (reply) => statsOf(reply, retention, keysOf(chain)),
    ),
  refused: (chain) => refusedOf(commandOf(chain), keyOf(chain, `check-${randomUUID()}`), streamOf(chain)),
  reset: (chain, { from, filter, delete: all }) =>
    Effect.asVoid(
      script("reset", "reset", chain, [String(from ?? ""), all ? "1" : "0", filter, randomUUID()]),
    ),
  info: command("info", infos).pipe(
    Effect.map(infoOf),
    // Any other error comes from the connection: no server was reached.
    Effect.catchIf(isWithheld, () => Effect.succeed(withheldInfo)),
  ),
})

/** A store on Redis. Connects on first use, so that the service starts while Redis is down. */
export const layer = (options: RedisStoreOptions): Layer.Layer<Contracts> => {
  const { config, prefix, retention, timeout, limits = callLimits } = options
  return Layer.effectContext(
    Effect.map(RedisChains.make(config, prefix, timeout), (chains) =>
      contextOf({
        ...RedisJournal.make(chains, retention, limits),
        ...RedisEntries.make(chains),
        ...adminOf(chains, options),
      }),
    ),
  )
}
