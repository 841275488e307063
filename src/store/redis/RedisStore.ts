/** The store on Redis Streams: each move is one Lua script on keys of one slot. */
import { Duration, Effect, Layer } from "effect"
import type { Scope } from "effect"
import { randomUUID } from "node:crypto"
import type { RedisConfig } from "../../config/AppConfig.ts"
import type { ChainId, Entry } from "../../Domain.ts"
import { callLimits, journalVersion } from "../Journal.ts"
import type { CallLimits } from "../Journal.ts"
import type { Retention } from "../Retention.ts"
import { pageSize, paged } from "../Entries.ts"
import type { Entries } from "../Entries.ts"
import type { JournalStore } from "../JournalStore.ts"
import type { StoreAdmin } from "../StoreAdmin.ts"
import { contextOf } from "../Store.ts"
import { corruptJournal, newerJournal } from "../StoreError.ts"
import type { EpochCheck } from "../JournalStore.ts"
import type { StoreError } from "../StoreError.ts"
import { refusedOf } from "./CommandCheck.ts"
import * as RedisConnection from "./RedisConnection.ts"
import type { Script } from "./RedisConnection.ts"
import { isWithheld } from "./RedisErrors.ts"
import { infoOf, infos, persistenceOf, worstOf } from "./RedisInfo.ts"
import {
  acknowledged,
  addedOf,
  journalOf,
  positionArgs,
  pushArgs,
  rejectionOf,
  trimmedOf,
} from "./RedisReplies.ts"
import type { Reply } from "./RedisReplies.ts"
import { fieldsOf, statsOf } from "./RedisStats.ts"
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

/** The timeout of a probe: short, so that a store that is available again is noticed at once. */
const probeTimeout = Duration.seconds(1)

/** When an entry was added (unix milliseconds): the first half of its id. */
const millisOf = (id: string) => Number(id.split("-")[0])

type Page = ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>

const make = Effect.fnUntraced(function* (options: RedisStoreOptions) {
  const { config, prefix, limits = callLimits } = options
  const { maxLength, backlog, groups } = options.retention
  const retention = [maxLength, backlog, ...groups].join("\n")
  const { command } = yield* RedisConnection.make(config, options.timeout)
  const context = yield* Effect.context<Scope.Scope>()
  const connections = new Map<ChainId, RedisConnection.RedisConnection>()

  /**
   * Sends a command on the keys of a chain. In a cluster each chain has its own connection, so that other chains are not
   * affected when the connections to a failed node are closed.
   */
  const commandOf = (chain: ChainId): RedisConnection.RedisConnection["command"] => {
    if (config.mode !== "cluster") return command
    const connection = Effect.suspend(() => {
      const known = connections.get(chain)
      if (known !== undefined) return Effect.succeed(known)
      return RedisConnection.make(config, options.timeout).pipe(
        Effect.provideContext(context),
        Effect.tap((made) => Effect.sync(() => connections.set(chain, made))),
      )
    })
    return (operation, send, deadline) =>
      Effect.flatMap(connection, (own) => own.command(operation, send, deadline))
  }

  const keysOf = (chain: ChainId) => [
    `${prefix}:${chain}`,
    `{${prefix}:${chain}}:head`,
    `{${prefix}:${chain}}:window`,
    `{${prefix}:${chain}}:missed`,
    `{${prefix}:${chain}}:readers`,
    `{${prefix}:${chain}}:filters`,
  ]
  const script = (name: Script, operation: string, chain: ChainId, args: ReadonlyArray<string | Buffer>) =>
    Effect.filterOrFail(
      commandOf(chain)(operation, (client) => client[name](...keysOf(chain), ...args)) as Effect.Effect<
        Reply,
        StoreError
      >,
      ([answer]) => answer !== "newer",
      ([, version]) => newerJournal(operation, Number(version)),
    )
  const streamOf = (chain: ChainId) => keysOf(chain)[0]!

  /** The first entry at or after an id. */
  const entryFrom = (chain: ChainId, id: string) =>
    Effect.map(
      commandOf(chain)(
        "read",
        (client) => client.xrange(streamOf(chain), id, "+", "COUNT", 1) as Promise<Page>,
      ),
      (entries) => entries[0],
    )

  const blockOf = ([, fields]: Page[number]) => Number(fieldsOf(fields)["block_number"])

  return contextOf({
    description: `redis ${config.nodes.map(({ host, port }) => `${host}:${port}`).join(",")} ${prefix}:*`,
    limits,
    ping: (chain) =>
      Effect.asVoid(
        commandOf(chain)(
          "ping",
          (client) => client.probe(...keysOf(chain), `{${prefix}:${chain}}:ping`),
          probeTimeout,
        ),
      ),
    load: (chain) =>
      Effect.flatMap(script("load", "load", chain, []), (reply) => {
        if (reply[0] === "corrupt") return Effect.fail(corruptJournal(chain, String(reply[1])))
        const [flat, window] = reply as unknown as readonly [ReadonlyArray<string>, ReadonlyArray<string>]
        const head = fieldsOf(flat)
        const version = Number(head["version"] ?? 1)
        return version > journalVersion
          ? Effect.fail(newerJournal("load", version))
          : Effect.succeed(journalOf(head, window))
      }),
    push: (chain, filter, push) =>
      Effect.map(script("push", "push", chain, pushArgs(chain, filter, push, retention)), (reply) => {
        if (reply[0] === "pushed") return { _tag: "Pushed", ...addedOf(reply.slice(1)) }
        if (reply[0] === "paused") return { _tag: "Paused" }
        return reply[0] === "duplicate" ? { _tag: "Duplicate" } : rejectionOf(reply)
      }),
    pop: (chain, filter, { expected }) =>
      Effect.map(
        script("pop", "pop", chain, [filter, ...positionArgs(expected), String(limits.logs)]),
        (reply) =>
          reply[0] === "popped"
            ? {
                _tag: "Popped",
                removed: Number(reply[1]),
                missing: Number(reply[2]),
                ...addedOf(reply.slice(3)),
              }
            : rejectionOf(reply),
      ),
    finalize: (chain, filter, { expected, number, hash }) =>
      Effect.map(
        script("finalize", "finalize", chain, [
          filter,
          ...positionArgs(expected),
          String(number),
          hash,
          retention,
        ]),
        (reply) => (reply[0] === "finalized" ? { _tag: "Finalized" } : rejectionOf(reply)),
      ),
    checkEpoch: (chain, known) =>
      Effect.map(
        script("epoch", "epoch check", chain, [
          known?.last?.id ?? "",
          known?.last?.identity ?? "",
          known?.last?.epoch ?? "",
          randomUUID(),
          ...(known?.before ?? []),
        ]),
        ([outcome, epoch, before, id, identity]) => ({
          outcome: outcome as EpochCheck["outcome"],
          known: {
            last: acknowledged(id, identity, epoch),
            before: String(before)
              .split(" ")
              .filter((one) => one !== ""),
          },
        }),
      ),
    changeFilter: (chain, filter) => Effect.asVoid(script("takeover", "filter change", chain, [filter])),
    after: (chain, after) => {
      const page = (after: string | undefined) =>
        Effect.map(
          commandOf(chain)("read", (client) => {
            const from = after === undefined ? "-" : `(${after}`
            return client.xrange(streamOf(chain), from, "+", "COUNT", pageSize) as Promise<Page>
          }),
          (entries) => entries.map(([id, fields]) => ({ id, entry: fieldsOf(fields) as unknown as Entry })),
        )
      return paged(page, after)
    },
    seek: Effect.fnUntraced(function* (chain, block) {
      const ends = yield* commandOf(chain)("seek", (client) =>
        Promise.all([
          client.xrange(streamOf(chain), "-", "+", "COUNT", 1) as Promise<Page>,
          client.xrevrange(streamOf(chain), "+", "-", "COUNT", 1) as Promise<Page>,
        ]),
      )
      const [[first], [last]] = ends
      if (first === undefined || last === undefined) return undefined
      // Bisects by time first, then reads through the entries of one millisecond.
      let low = millisOf(first[0])
      let high = millisOf(last[0])
      while (low <= high) {
        const middle = Math.floor((low + high) / 2)
        const found = yield* entryFrom(chain, `${middle}-0`)
        if (found === undefined || blockOf(found) >= block) high = middle - 1
        else low = Math.max(millisOf(found[0]), middle) + 1
      }
      let after: string | undefined
      // `high` is the last millisecond whose first entry is below the block.
      let from = high < millisOf(first[0]) ? undefined : `${high}-0`
      while (from !== undefined) {
        const page = yield* commandOf(chain)(
          "seek",
          (client) => client.xrange(streamOf(chain), from!, "+", "COUNT", pageSize) as Promise<Page>,
        )
        const reached = page.findIndex((entry) => blockOf(entry) >= block)
        const below = reached === -1 ? page.at(-1) : page[reached - 1]
        after = below?.[0] ?? after
        from = reached === -1 && page.length === pageSize ? `(${page.at(-1)![0]}` : undefined
      }
      return after
    }),
    stats: (chain) =>
      Effect.map(
        commandOf(chain)(
          "stats",
          (client) => client.stats(...keysOf(chain), retention) as Promise<StatsReply>,
        ),
        (reply) => statsOf(reply, options.retention, keysOf(chain)),
      ),
    refused: (chain) =>
      refusedOf(commandOf(chain), `{${prefix}:${chain}}:check-${randomUUID()}`, keysOf(chain)[0]!),
    trim: (chain) =>
      Effect.map(script("trim", "trim", chain, [retention, randomUUID()]), (reply) =>
        trimmedOf(reply, keysOf(chain)),
      ),
    reset: (chain, { from, filter, delete: all }) =>
      Effect.asVoid(
        script("reset", "reset", chain, [
          from === undefined ? "" : String(from),
          all ? "1" : "0",
          filter,
          randomUUID(),
        ]),
      ),
    info: command("info", infos).pipe(
      Effect.map((texts) => {
        const info = worstOf(texts.map(infoOf))
        const name = info["valkey_version"] === undefined ? "redis" : "valkey"
        return {
          version: `${name} ${info["valkey_version"] ?? info["redis_version"]}`,
          bytes: Number(info["used_memory"]),
          limit: Number(info["maxmemory"]),
          evictionPolicy: info["maxmemory_policy"],
          persistence: persistenceOf(info),
        }
      }),
      // Any other error comes from the connection: no server was reached.
      Effect.catchIf(isWithheld, () =>
        Effect.succeed({
          version: "redis (its user may not run INFO)",
          bytes: undefined,
          limit: undefined,
          evictionPolicy: undefined,
          persistence: undefined,
        }),
      ),
    ),
  })
})

/** A store on Redis. Connects on first use, so that the service starts while Redis is down. */
export const layer = (options: RedisStoreOptions): Layer.Layer<JournalStore | Entries | StoreAdmin> =>
  Layer.effectContext(make(options))
