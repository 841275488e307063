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
import type { RedisConfig } from "../../config/AppConfig.ts"
import { makeRedactor, Redaction } from "../../Redactor.ts"
import { diagnose, isVague } from "./Diagnosis.ts"
import { StoreError } from "../Store.ts"
import type { StoreReason } from "../Store.ts"

const defaultTimeout = Duration.seconds(5)

const source = (name: string) => readFileSync(new URL(`lua/${name}.lua`, import.meta.url), "utf8")

const scripts = [
  "push",
  "pop",
  "finalize",
  "takeover",
  "load",
  "trim",
  "reset",
  "probe",
  "stats",
  "check",
  "epoch",
] as const

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
  // The server is no single one, but a node of a cluster.
  MOVED: "refused",
  ASK: "refused",
  DENIED: "refused",
  WRONGTYPE: "corrupt",
}

/** What to do where a server's own words do not say it. */
const hints = [
  [/^MOVED |^ASK /, "this is a node of a cluster: set REDIS_CLUSTER=true"],
  [/cluster support disabled/, "set REDIS_CLUSTER only for a cluster"],
  [/^-?READONLY /, "this is a replica: name its master, or set REDIS_SENTINEL_MASTER"],
  [
    /^All sentinels.*(NOAUTH|WRONGPASS)/,
    "set REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD as the sentinels have them",
  ],
  [/alert certificate required/, "set REDIS_CERT_FILE and REDIS_KEY_FILE"],
] as const

/** The client's words around what a sentinel said last. */
const ofSentinels = /^All sentinels are unreachable.* Last error: (?=[A-Z])/

/** Redis 6.2 puts what a command in a script said behind the script's own error. */
const insideScript = /@user_script: ?\d+: -?([A-Z]+)\b/

/** Why Redis, or the way to it, refused, as far as its words say. */
export const reasonOf = (message: string): StoreReason => {
  // 6.2 says this to a script without a word of its own in front.
  if (/unknown redis command|user executing the script can't/i.test(message)) return "refused"
  // Of a server that has no place for us now: there will be one.
  if (/max number of clients|max concurrent connections/.test(message)) return "unreachable"
  // What the plan of a managed server has room for.
  if (/capacity quota exceeded|single record size exceeded/.test(message)) return "full"
  const inside = insideScript.exec(message)?.[1]
  const own = /^-?([A-Z]+)\b/.exec(message.replace(ofSentinels, ""))?.[1]
  const word = inside !== undefined && inside in reasons ? inside : own
  return reasons[word ?? ""] ?? "unreachable"
}

/** How servers, and the proxies in front of them, say that a command is not for us. */
export const isWithheld = ({ reason, detail }: StoreError): boolean =>
  reason === "refused" &&
  /^NOPERM|unknown (sub)?command|command (is )?not (available|allowed|supported|permitted)/i.test(detail)

/** After these the connection is worth nothing: it leads to the wrong server, or nowhere, or its user is not known. */
const endsConnection = ({ reason, detail }: StoreError) =>
  reason === "unreachable" ||
  reason === "timeout" ||
  reason === "read-only" ||
  reason === "loading" ||
  /^(NOAUTH|WRONGPASS)/.test(detail)

/** The certificates, read for each connection: they are renewed more often than the service is started. */
const tlsOptions = ({ caFile, certFile, keyFile }: RedisConfig) => ({
  ...(caFile && { ca: readFileSync(caFile) }),
  ...(certFile && { cert: readFileSync(certFile) }),
  ...(keyFile && { key: readFileSync(keyFile) }),
})

/** What a connection to one server needs. */
const serverOptions = (config: RedisConfig, timeout: Duration.Duration) => {
  const tls = config.tls && tlsOptions(config)
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
  }
}

/** What our connections are called in `CLIENT LIST`. */
export const clientName = "event-ingestor"

const never = () => null

const open = (config: RedisConfig, timeout: Duration.Duration): Redis | Cluster => {
  const server = serverOptions(config, timeout)
  const once = { ...server, retryStrategy: never, enableOfflineQueue: false }
  switch (config.mode) {
    case "standalone":
      return new Redis({ ...once, ...config.nodes[0]! })
    case "sentinel":
      return new Redis({
        ...once,
        sentinels: [...config.nodes],
        name: config.sentinelMaster!,
        sentinelRetryStrategy: never,
        ...(config.sentinelUsername !== undefined && { sentinelUsername: config.sentinelUsername }),
        ...(config.sentinelPassword !== undefined && {
          sentinelPassword: Redacted.value(config.sentinelPassword),
        }),
        ...(server.tls && { enableTLSForSentinelMode: true, sentinelTLS: server.tls }),
      })
    case "cluster":
      return new Cluster([...config.nodes], {
        // A certificate is of a name: resolved before, it would be compared with an address.
        ...(server.tls && { dnsLookup: (host, done) => done(null, host) }),
        redisOptions: { ...server, connectionName: clientName },
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
  given: RedisConfig,
  timeout: Duration.Duration = defaultTimeout,
): Effect.fn.Return<RedisConnection, never, Scope.Scope> {
  const redaction = yield* Redaction
  let redact = redaction
  const connecting = yield* Semaphore.make(1)
  let config = given
  let client: Client | undefined

  /** A secret that is in a file may be another one by now: the files are read again for each connection. */
  const renew = Effect.gen(function* () {
    const read = given.renewed === undefined ? undefined : yield* given.renewed
    if (read === undefined) return
    const { username, password, sentinelPassword } = read
    config = { ...given, username, password, sentinelPassword }
    const words = [password, sentinelPassword].flatMap((word) => word ?? [])
    const hide = makeRedactor({ urls: [], words: words.map(Redacted.value) })
    redact = (text) => hide(redaction(text))
  })

  const failure = (operation: string) => (cause: unknown) => {
    const message = cause instanceof Error ? cause.message : String(cause)
    const hint = hints.find(([words]) => words.test(message))?.[1]
    const detail = `${redact(message)}${hint === undefined ? "" : ` (${hint})`}`
    return new StoreError({ operation, reason: reasonOf(message), detail })
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
    yield* renew
    const next = yield* Effect.try({ try: () => makeClient(config, timeout), catch: failure(operation) })
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
      if (config.mode === "cluster") return
      // Not left to the client, which sends all at once and hears no refusal: a server that has no place for us says so
      // in answer to the first command, and the database may be one that we may not select.
      await next.client("SETNAME", clientName).catch((error: Error) => {
        if (!isWithheld(failure(operation)(error))) throw error
      })
      if (config.database !== 0) await next.select(config.database)
    }
    yield* Effect.onError(Effect.tryPromise({ try: ready, catch: refused }), () =>
      Effect.sync(() => next.disconnect(false)),
    )
    return (client = next)
  })

  /** Where nothing but the end of a connection was seen, the server is asked in another way what it has against us. */
  const explained = (operation: string) => (error: StoreError) =>
    !isVague(error.reason, error.detail, config)
      ? Effect.fail(error)
      : Effect.flatMap(
          Effect.tryPromise(async () => diagnose(config, tlsOptions(config), error.reason)).pipe(
            Effect.orElseSucceed(() => undefined),
          ),
          (found) => Effect.fail(found === undefined ? error : failure(operation)(found)),
        )

  const connected = (operation: string, patience: Duration.Duration) =>
    Effect.suspend(() =>
      client === undefined
        ? connecting
            .withPermit(connect(operation))
            .pipe(within(operation, patience), Effect.catch(explained(operation)))
        : Effect.succeed(client),
    )

  const command = <A>(operation: string, send: (client: Client) => Promise<A>, patience = timeout) =>
    Effect.flatMap(connected(operation, patience), (client) =>
      Effect.tryPromise({ try: () => send(client), catch: failure(operation) }).pipe(
        within(operation, patience),
        Effect.tapError((error) => (endsConnection(error) ? disconnect(client) : Effect.void)),
      ),
    )

  yield* Effect.addFinalizer(() => Effect.suspend(() => disconnect(client)))

  return { command }
})
