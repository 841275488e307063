/**
 * The connection to Redis, through ioredis: standalone, behind Sentinel, or a Cluster.
 *
 * A command that gets no answer in time costs the connection: a half-open socket is noticed, and since a script that ran
 * already is a duplicate when it is sent again, nothing is lost. Nothing is queued while there is no connection, and
 * nothing here retries: each chain's breaker does.
 */
import { Duration, Effect, Redacted, Semaphore } from "effect"
import type { Scope } from "effect"
import { Cluster, Redis } from "ioredis"
import { readFileSync } from "node:fs"
import type { RedisConfig } from "../Config.ts"
import { Redaction } from "../Redact.ts"
import { StoreError } from "./Store.ts"
import type { StoreReason } from "./Store.ts"

const defaultTimeout = Duration.seconds(5)

const source = (name: string) => readFileSync(new URL(`lua/${name}.lua`, import.meta.url), "utf8")

const scripts = ["push", "pop", "finalize", "takeover", "load", "trim", "reset", "probe"] as const

export type Script = (typeof scripts)[number]

/** A client with our scripts as commands: EVALSHA, and EVAL where the server does not know the script (any more). */
export type Client = (Redis | Cluster) &
  Record<Script, (...args: ReadonlyArray<string | Buffer>) => Promise<unknown>>

/** How the first word of an error, or a socket's code, is to be understood. */
const reasons: Readonly<Record<string, StoreReason>> = {
  OOM: "full",
  READONLY: "read-only",
  MISCONF: "read-only",
  NOREPLICAS: "read-only",
  LOADING: "loading",
  MASTERDOWN: "loading",
  BUSY: "timeout",
  CLUSTERDOWN: "unreachable",
  TRYAGAIN: "unreachable",
  UNBLOCKED: "unreachable",
  NOAUTH: "refused",
  WRONGPASS: "refused",
  NOPERM: "refused",
  ERR: "refused",
  WRONGTYPE: "corrupt",
}

/** Redis 6.2 puts what a command in a script said behind the script's own error. */
const insideScript = /@user_script: ?\d+: -?([A-Z]+)\b/

/** Why Redis, or the way to it, refused, as far as its words say. */
export const reasonOf = (message: string): StoreReason => {
  const inside = insideScript.exec(message)?.[1]
  const word = inside !== undefined && inside in reasons ? inside : /^-?([A-Z]+)\b/.exec(message)?.[1]
  return reasons[word ?? ""] ?? "unreachable"
}

/** After these the connection is worth nothing: it leads to the wrong server, or nowhere. */
const endsConnection = (reason: StoreReason) =>
  reason === "unreachable" || reason === "timeout" || reason === "read-only" || reason === "loading"

/** What a connection to one server needs. */
const serverOptions = (config: RedisConfig, timeout: Duration.Duration) => {
  const tls = config.tls && { ...(config.caFile && { ca: readFileSync(config.caFile) }) }
  return {
    ...(config.username !== undefined && { username: config.username }),
    ...(config.password !== undefined && { password: Redacted.value(config.password) }),
    ...(tls && { tls }),
    lazyConnect: true,
    // Resending is the scripts' business, retrying the breaker's.
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false,
    disableClientInfo: true,
    connectTimeout: Duration.toMillis(timeout),
    keepAlive: 10_000,
    connectionName: "event-ingestor",
  }
}

const never = () => null

const open = (config: RedisConfig, timeout: Duration.Duration): Redis | Cluster => {
  const server = serverOptions(config, timeout)
  const once = { ...server, db: config.database, retryStrategy: never, enableOfflineQueue: false }
  switch (config.mode) {
    case "standalone":
      return new Redis({ ...once, ...config.nodes[0]! })
    case "sentinel":
      return new Redis({
        ...once,
        sentinels: [...config.nodes],
        name: config.sentinelMaster!,
        sentinelRetryStrategy: never,
        ...(server.tls && { enableTLSForSentinelMode: true, sentinelTLS: server.tls }),
      })
    case "cluster":
      return new Cluster([...config.nodes], {
        // A certificate is of a name: resolved before, it would be compared with an address.
        ...(server.tls && { dnsLookup: (host, done) => done(null, host) }),
        redisOptions: server,
        lazyConnect: true,
        enableOfflineQueue: false,
        enableReadyCheck: false,
        clusterRetryStrategy: never,
        slotsRefreshTimeout: Duration.toMillis(timeout),
      })
  }
}

const makeClient = (config: RedisConfig, timeout: Duration.Duration): Client => {
  const client = open(config, timeout)
  const common = source("journal")
  for (const name of scripts) {
    const numberOfKeys = name === "probe" ? 7 : 6
    client.defineCommand(name, { numberOfKeys, lua: `${common}\n${source(name)}` })
  }
  return client as Client
}

export interface RedisConnection {
  /**
   * Sends a command, over a connection that is made where there is none.
   *
   * @param operation what the caller does, for the error
   * @param patience for connecting, and for the answer; by default the connection's
   */
  readonly command: <A>(
    operation: string,
    send: (client: Client) => Promise<A>,
    patience?: Duration.Duration,
  ) => Effect.Effect<A, StoreError>
}

/**
 * Connects when it is first used, and again when it is used after a failure.
 *
 * @param timeout for connecting, and for one command
 */
export const make = Effect.fnUntraced(function* (
  config: RedisConfig,
  timeout: Duration.Duration = defaultTimeout,
): Effect.fn.Return<RedisConnection, never, Scope.Scope> {
  const redact = yield* Redaction
  const connecting = yield* Semaphore.make(1)
  let client: Client | undefined

  const failure = (operation: string) => (cause: unknown) => {
    const message = cause instanceof Error ? cause.message : String(cause)
    return new StoreError({ operation, reason: reasonOf(message), detail: redact(message) })
  }
  /** Once for each connection, however many commands were on their way over it. */
  const disconnect = (which: Client | undefined) =>
    Effect.sync(() => {
      if (which === undefined || client !== which) return
      client = undefined
      which.disconnect(false)
    })

  /** Fails when it takes too long. The error is made then: one that nobody sees would be 3 % of what a move costs. */
  const within = (operation: string, patience: Duration.Duration) =>
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () =>
        Effect.fail(
          new StoreError({
            operation,
            reason: "timeout",
            detail: `no answer within ${Duration.toMillis(patience)} ms`,
          }),
        ),
    })

  const connect = Effect.fnUntraced(function* (operation: string) {
    if (client !== undefined) return client
    const next = makeClient(config, timeout)
    // A connect that fails only says so; the reason comes as an event. Commands have failures of their own.
    let reason: unknown
    next.on("error", (error: Error & { readonly lastNodeError?: Error }) => {
      reason = error.lastNodeError ?? error
    })
    // Closed by the other side: the next command makes a new connection instead of failing on this one.
    next.on("end", () => {
      if (client === next) client = undefined
    })
    const refused = (cause: unknown) => failure(operation)(reason ?? cause)
    const ready = async () => {
      await next.connect()
      // The client selects the database too, and stays in the first one, without a word, where it may not.
      if (config.mode !== "cluster" && config.database !== 0) await next.select(config.database)
    }
    yield* Effect.onError(Effect.tryPromise({ try: ready, catch: refused }), () =>
      Effect.sync(() => next.disconnect(false)),
    )
    return (client = next)
  })

  const connected = (operation: string, patience: Duration.Duration) =>
    Effect.suspend(() =>
      client === undefined
        ? connecting.withPermit(connect(operation)).pipe(within(operation, patience))
        : Effect.succeed(client),
    )

  const command = <A>(operation: string, send: (client: Client) => Promise<A>, patience = timeout) =>
    Effect.flatMap(connected(operation, patience), (client) =>
      Effect.tryPromise({ try: () => send(client), catch: failure(operation) }).pipe(
        within(operation, patience),
        Effect.tapError((error) => (endsConnection(error.reason) ? disconnect(client) : Effect.void)),
      ),
    )

  yield* Effect.addFinalizer(() => Effect.suspend(() => disconnect(client)))

  return { command }
})
