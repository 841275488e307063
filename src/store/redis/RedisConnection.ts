/**
 * The connection to Redis, through ioredis: standalone, behind Sentinel, or a Cluster.
 *
 * A command that times out closes the connection, so that a half-open socket is noticed. Nothing is lost by that: a script
 * that has already run is a duplicate when it is sent again. Commands are not queued while there is no connection, and
 * nothing here retries: each chain's breaker does.
 */
import { Duration, Effect, Redacted, Semaphore } from "effect"
import type { Scope } from "effect"
import { Cluster, Redis } from "ioredis"
import { readFileSync } from "node:fs"
import type { RedisConfig } from "../../config/AppConfig.ts"
import { makeRedactor, Redaction } from "../../Redactor.ts"
import { diagnose, isVague } from "./Diagnosis.ts"
import { endsConnection, hints, isWithheld, reasonOf } from "./RedisErrors.ts"
import { StoreError } from "../StoreError.ts"

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

/** A client with our scripts as commands: EVALSHA, and EVAL when the server does not have the script (any more). */
export type Client = (Redis | Cluster) &
  Record<Script | "fleet", (...args: ReadonlyArray<string | Buffer>) => Promise<unknown>>

/** The certificates. They are read for each connection, because they are renewed while the service runs. */
const tlsOptions = ({ caFile, certFile, keyFile }: RedisConfig) => ({
  ...(caFile && { ca: readFileSync(caFile) }),
  ...(certFile && { cert: readFileSync(certFile) }),
  ...(keyFile && { key: readFileSync(keyFile) }),
})

/** The options of a connection to one server. */
const serverOptions = (config: RedisConfig, timeout: Duration.Duration) => {
  const tls = config.tls && tlsOptions(config)
  return {
    ...(config.username !== undefined && { username: config.username }),
    ...(config.password !== undefined && { password: Redacted.value(config.password) }),
    ...(tls && { tls }),
    lazyConnect: true,
    // The scripts handle resending, the breaker handles retries.
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false,
    disableClientInfo: true,
    connectTimeout: Duration.toMillis(timeout),
    keepAlive: 10_000,
  }
}

/** The name of our connections in `CLIENT LIST`. */
export const clientName = "event-ingestor"

const noRetry = () => null

const open = (config: RedisConfig, timeout: Duration.Duration): Redis | Cluster => {
  const server = serverOptions(config, timeout)
  const once = { ...server, retryStrategy: noRetry, enableOfflineQueue: false }
  switch (config.mode) {
    case "standalone":
      return new Redis({ ...once, ...config.nodes[0]! })
    case "sentinel":
      return new Redis({
        ...once,
        sentinels: [...config.nodes],
        name: config.sentinelMaster!,
        sentinelRetryStrategy: noRetry,
        ...(config.sentinelUsername !== undefined && { sentinelUsername: config.sentinelUsername }),
        ...(config.sentinelPassword !== undefined && {
          sentinelPassword: Redacted.value(config.sentinelPassword),
        }),
        ...(server.tls && { enableTLSForSentinelMode: true, sentinelTLS: server.tls }),
      })
    case "cluster":
      return new Cluster([...config.nodes], {
        // A certificate names a host: resolved by us, it would be compared with an address.
        ...(server.tls && { dnsLookup: (host, done) => done(null, host) }),
        redisOptions: { ...server, connectionName: clientName },
        lazyConnect: true,
        enableOfflineQueue: false,
        enableReadyCheck: false,
        clusterRetryStrategy: noRetry,
        slotsRefreshTimeout: Duration.toMillis(timeout),
      })
  }
}

const makeClient = (config: RedisConfig, timeout: Duration.Duration): Client => {
  const client = open(config, timeout)
  const common = `${source("common")}\n${source("retention")}`
  for (const name of scripts) {
    const numberOfKeys = name === "probe" ? 7 : 6
    client.defineCommand(name, { numberOfKeys, lua: `${common}\n${source(name)}` })
  }
  client.defineCommand("fleet", {
    numberOfKeys: 3,
    lua: readFileSync(new URL("../../fleet/fleet.lua", import.meta.url), "utf8"),
  })
  return client as Client
}

export interface RedisConnection {
  /**
   * Sends a command. Connects first if there is no connection.
   *
   * @param operation what the caller does, for the error message
   * @param deadline for connecting, and for the answer; by default the connection's timeout
   */
  readonly command: <A>(
    operation: string,
    send: (client: Client) => Promise<A>,
    deadline?: Duration.Duration,
  ) => Effect.Effect<A, StoreError>
}

/** Fails after the deadline. The error is created only then: creating it each time would be 3 % of the cost of a move. */
const within = (operation: string, deadline: Duration.Duration) =>
  Effect.timeoutOrElse({
    duration: deadline,
    orElse: () =>
      Effect.fail(
        new StoreError({
          operation,
          reason: "timeout",
          detail: `no answer within ${Duration.toMillis(deadline)} ms`,
        }),
      ),
  })

/** Makes the error of an operation of its cause. */
type Failure = (operation: string) => (cause: unknown) => StoreError

/** Connects a client, names the connection and selects the database. @param onEnd called when the server closes it */
const connect = Effect.fnUntraced(function* (
  client: Client,
  { database, mode }: RedisConfig,
  failure: ReturnType<Failure>,
  onEnd: () => void,
) {
  // A failed connect rejects without a reason; the reason comes as an event. Commands report their own failures.
  let reason: unknown
  client.on("error", (error: Error & { readonly lastNodeError?: Error }) => {
    reason = error.lastNodeError ?? error
  })
  client.on("end", onEnd)
  const ready = async () => {
    await client.connect()
    if (mode === "cluster") return
    // ioredis would send these commands without reading the answers. A server at its connection limit refuses the first
    // command, and our user may not be allowed to select the database.
    await client.client("SETNAME", clientName).catch((error: Error) => {
      if (!isWithheld(failure(error))) throw error
    })
    if (database !== 0) await client.select(database)
  }
  yield* Effect.tryPromise({ try: ready, catch: (cause) => failure(reason ?? cause) }).pipe(
    Effect.onError(() => Effect.sync(() => client.disconnect(false))),
  )
})

/** If an error says only that the connection ended, asks the server in another way for the reason. */
const withDiagnosis = (config: RedisConfig, failure: ReturnType<Failure>) => (error: StoreError) =>
  !isVague(error.reason, error.detail, config)
    ? Effect.fail(error)
    : Effect.flatMap(
        Effect.tryPromise(async () => diagnose(config, tlsOptions(config), error.reason)).pipe(
          Effect.orElseSucceed(() => undefined),
        ),
        (found) => Effect.fail(found === undefined ? error : failure(found)),
      )

/**
 * Connects on first use, and reconnects on the next use after a failure.
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

  /** Secrets in files may have been rotated: the files are read again for each connection. */
  const renew = Effect.gen(function* () {
    const read = given.renewed === undefined ? undefined : yield* given.renewed
    if (read === undefined) return
    const { username, password, sentinelPassword } = read
    config = { ...given, username, password, sentinelPassword }
    const words = [password, sentinelPassword].flatMap((word) => word ?? [])
    const redactSecrets = makeRedactor({ urls: [], words: words.map(Redacted.value) })
    redact = (text) => redactSecrets(redaction(text))
  })

  const failure: Failure = (operation) => (cause) => {
    const message = cause instanceof Error ? cause.message : String(cause)
    const hint = hints.find(([words]) => words.test(message))?.[1]
    const detail = `${redact(message)}${hint === undefined ? "" : ` (${hint})`}`
    return new StoreError({ operation, reason: reasonOf(message), detail })
  }
  /** Disconnects once per connection, however many commands were in flight on it. */
  const disconnect = (which: Client | undefined) =>
    Effect.sync(() => {
      if (which === undefined || client !== which) return
      client = undefined
      which.disconnect(false)
    })

  const reconnected = Effect.fnUntraced(function* (operation: string) {
    if (client !== undefined) return client
    yield* renew
    const next = yield* Effect.try({ try: () => makeClient(config, timeout), catch: failure(operation) })
    // The next command reconnects instead of failing on this client.
    yield* connect(next, config, failure(operation), () => {
      if (client === next) client = undefined
    })
    return (client = next)
  })

  const connected = (operation: string, deadline: Duration.Duration) =>
    Effect.suspend(() =>
      client === undefined
        ? connecting.withPermit(reconnected(operation)).pipe(
            within(operation, deadline),
            Effect.catch((error) => withDiagnosis(config, failure(operation))(error)),
          )
        : Effect.succeed(client),
    )

  const command = <A>(operation: string, send: (client: Client) => Promise<A>, deadline = timeout) =>
    Effect.flatMap(connected(operation, deadline), (client) =>
      Effect.tryPromise({ try: () => send(client), catch: failure(operation) }).pipe(
        within(operation, deadline),
        Effect.tapError((error) => (endsConnection(error) ? disconnect(client) : Effect.void)),
      ),
    )

  yield* Effect.addFinalizer(() => Effect.suspend(() => disconnect(client)))

  return { command }
})
