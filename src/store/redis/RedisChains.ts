/** The keys of each chain, and the connection over which its commands go. */
import { Effect } from "effect"
import type { Duration, Scope } from "effect"
import type { RedisConfig } from "../../config/AppConfig.ts"
import type { ChainId } from "../../Domain.ts"
import type { Retention } from "../Retention.ts"
import { newerJournal } from "../StoreError.ts"
import type { StoreError } from "../StoreError.ts"
import * as RedisConnection from "./RedisConnection.ts"
import type { Script } from "./RedisConnection.ts"

type Command = RedisConnection.RedisConnection["command"]

/** The keys that each script receives, all in one slot: the stream, head, window, missed, readers, filters. */
export type Keys = ReadonlyArray<string>

/** What a script answers: the name of the outcome, and what belongs to it. */
export type Reply = readonly [string, ...ReadonlyArray<string | number>]

/** `[field, value, …]` → an object. */
export const fieldsOf = (flat: ReadonlyArray<string>): Record<string, string> => {
  const fields: Record<string, string> = {}
  for (let i = 0; i < flat.length; i += 2) fields[flat[i]!] = flat[i + 1]!
  return fields
}

/** The command that releases `group:<name>` or `reader:<name>`, so that trimming no longer waits for it. */
export const releaseOf = (reader: string, [stream, , , , readers]: Keys): string => {
  const [kind, name] = [reader.slice(0, reader.indexOf(":")), reader.slice(reader.indexOf(":") + 1)]
  return kind === "group" ? `XGROUP DESTROY ${stream} ${name}` : `HDEL ${readers} ${name}`
}

/** How much of a stream is kept, as one argument. */
export const retentionArg = ({ maxLength, backlog, groups }: Retention): string =>
  [maxLength, backlog, ...groups].join("\n")

/**
 * @param prefix of the keys; a chain's stream is `<prefix>:<chain id>`
 * @param timeout for connecting, and for one command
 */
export const make = Effect.fnUntraced(function* (
  config: RedisConfig,
  prefix: string,
  timeout: Duration.Duration | undefined,
) {
  const { command } = yield* RedisConnection.make(config, timeout)
  const context = yield* Effect.context<Scope.Scope>()
  const connections = new Map<ChainId, RedisConnection.RedisConnection>()

  /**
   * Sends a command on the keys of a chain. In a cluster each chain has its own connection, so that other chains are not
   * affected when the connections to a failed node are closed.
   */
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

  /** A key of a chain beside its stream, in the same slot. */
  const keyOf = (chain: ChainId, name: string) => `{${prefix}:${chain}}:${name}`
  const streamOf = (chain: ChainId) => `${prefix}:${chain}`
  const keysOf = (chain: ChainId): Keys => [
    streamOf(chain),
    ...["head", "window", "missed", "readers", "filters"].map((name) => keyOf(chain, name)),
  ]

  /** Runs a script on the keys of a chain. */
  const script = (
    name: Script,
    operation: string,
    chain: ChainId,
    args: ReadonlyArray<string | Buffer>,
  ): Effect.Effect<Reply, StoreError> =>
    Effect.filterOrFail(
      commandOf(chain)(operation, (client) => client[name](...keysOf(chain), ...args) as Promise<Reply>),
      ([answer]) => answer !== "newer",
      ([, version]) => newerJournal(operation, Number(version)),
    )

  return { command, commandOf, streamOf, keysOf, keyOf, script }
})

export type RedisChains = Effect.Success<ReturnType<typeof make>>
