/** The keys of each chain, and the connection over which its commands go. */
import { Effect } from "effect"
import type { Duration, Scope } from "effect"
import type { RedisConfig } from "../../config/AppConfig.ts"
import type { ChainId } from "../../Domain.ts"
import { newerJournal } from "../StoreError.ts"
import type { StoreError } from "../StoreError.ts"
import * as RedisConnection from "./RedisConnection.ts"
import type { Script } from "./RedisConnection.ts"

type Command = RedisConnection.RedisConnection["command"]

/** The keys that each script receives, all in one slot: the stream, head, window, missed, readers, filters. */
export type Keys = ReadonlyArray<string>

/** What a script answers: the name of the outcome, and what belongs to it. */
export type Reply = readonly [string, ...ReadonlyArray<string | number>]

export interface RedisChains {
  /** Sends a command that concerns no chain. */
  readonly command: Command
  /** Sends a command on the keys of a chain. */
  readonly commandOf: (chain: ChainId) => Command
  readonly streamOf: (chain: ChainId) => string
  readonly keysOf: (chain: ChainId) => Keys
  /** Another key in the slot of a chain. */
  readonly keyOf: (chain: ChainId, name: string) => string
  /** Runs a script on the keys of a chain. */
  readonly script: (
    name: Script,
    operation: string,
    chain: ChainId,
    args: ReadonlyArray<string | Buffer>,
  ) => Effect.Effect<Reply, StoreError>
}

/**
 * @param prefix of the keys; a chain's stream is `<prefix>:<chain id>`
 * @param timeout for connecting, and for one command
 */
export const make = Effect.fnUntraced(function* (
  config: RedisConfig,
  prefix: string,
  timeout: Duration.Duration | undefined,
): Effect.fn.Return<RedisChains, never, Scope.Scope> {
  const { command } = yield* RedisConnection.make(config, timeout)
  const context = yield* Effect.context<Scope.Scope>()
  const connections = new Map<ChainId, RedisConnection.RedisConnection>()

  /** In a cluster each chain has its own connection: the connections to a failed node are closed, others must not be. */
  const commandOf = (chain: ChainId): Command => {
    if (config.mode !== "cluster") return command
    const connection = Effect.suspend(() => {
      const known = connections.get(chain)
      if (known !== undefined) return Effect.succeed(known)
      return RedisConnection.make(config, timeout).pipe(
        Effect.provideContext(context),
        Effect.tap((made) => Effect.sync(() => connections.set(chain, made))),
      )
    })
    return (operation, send, deadline) =>
      Effect.flatMap(connection, (own) => own.command(operation, send, deadline))
  }

  const keyOf = (chain: ChainId, name: string) => `{${prefix}:${chain}}:${name}`
  const streamOf = (chain: ChainId) => `${prefix}:${chain}`
  const keysOf = (chain: ChainId): Keys => [
    streamOf(chain),
    ...["head", "window", "missed", "readers", "filters"].map((name) => keyOf(chain, name)),
  ]

  const script: RedisChains["script"] = (name, operation, chain, args) =>
    Effect.filterOrFail(
      commandOf(chain)(operation, (client) => client[name](...keysOf(chain), ...args) as Promise<Reply>),
      ([answer]) => answer !== "newer",
      ([, version]) => newerJournal(operation, Number(version)),
    )

  return { command, commandOf, streamOf, keysOf, keyOf, script }
})
