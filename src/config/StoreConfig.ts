/** Where the journals go: the variables of Redis, or of the SQLite file. */
import { Effect, Redacted } from "effect"
import { createPrivateKey, X509Certificate } from "node:crypto"
import { readFileSync } from "node:fs"
import * as Codec from "./Codec.ts"
import { percentDecoded } from "../Redactor.ts"
import { variable } from "./Variable.ts"
import type { Reader, Section } from "./Variable.ts"

export interface RedisConfig {
  readonly _tag: "Redis"
  readonly mode: "standalone" | "sentinel" | "cluster"
  readonly nodes: ReadonlyArray<{ readonly host: string; readonly port: number }>
  readonly tls: boolean
  readonly caFile: string | undefined
  /** A certificate of our own, for servers that ask for one. */
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
  readonly username: string | undefined
  readonly password: Redacted.Redacted<string> | undefined
  readonly database: number
  readonly sentinelMaster: string | undefined
  readonly sentinelUsername: string | undefined
  readonly sentinelPassword: Redacted.Redacted<string> | undefined
  /** Where secrets are in files: the same with the files read again, if they still are what they should be. */
  readonly renewed: Effect.Effect<RedisConfig | undefined> | undefined
}

export interface SqliteConfig {
  readonly _tag: "Sqlite"
  readonly path: string
}

const redis = {
  url: variable("REDIS_URL", Codec.list(Codec.urlOf("redis:", "rediss:")), {
    example: "redis://:PASSWORD@127.0.0.1:6379/0",
    isSecret: true,
    meaning:
      "`redis://` or `rediss://` (TLS) `user:password@host:port/db`; several nodes comma-separated. Of a query only `?db=` is accepted. Without Redis, one SQLite file is the store",
  }),
  host: variable("REDIS_HOST", Codec.text, {
    example: "127.0.0.1",
    meaning: "instead of `REDIS_URL`",
  }),
  port: variable("REDIS_PORT", Codec.port, { example: "6379", meaning: "beside `REDIS_HOST`" }),
  password: variable("REDIS_PASSWORD", Codec.text, {
    isSecret: true,
    meaning: "beside `REDIS_HOST`, or instead of the one in `REDIS_URL`",
  }),
  sentinelMaster: variable("REDIS_SENTINEL_MASTER", Codec.text, {
    example: "mymaster",
    meaning: "the nodes are sentinels of this master",
  }),
  sentinelUsername: variable("REDIS_SENTINEL_USERNAME", Codec.text, {
    meaning: "the user of the sentinels themselves; the one of `REDIS_URL` is the master's",
  }),
  sentinelPassword: variable("REDIS_SENTINEL_PASSWORD", Codec.text, {
    isSecret: true,
    meaning: "the password of the sentinels themselves",
  }),
  cluster: variable("REDIS_CLUSTER", Codec.oneOf("true", "false"), {
    default: "false",
    meaning: "`true`: the nodes are seeds of a cluster",
  }),
  caFile: variable("REDIS_CA_FILE", Codec.text, {
    example: "/run/secrets/redis-ca.pem",
    meaning: "certificate authority for `rediss://`",
  }),
  certFile: variable("REDIS_CERT_FILE", Codec.text, {
    example: "/run/secrets/redis.crt",
    meaning: "client certificate in PEM, where `rediss://` requires one",
  }),
  keyFile: variable("REDIS_KEY_FILE", Codec.text, {
    example: "/run/secrets/redis.key",
    meaning: "the key of the client certificate in PEM, without a passphrase",
  }),
}

const sqlite = {
  path: variable("DATABASE_PATH", Codec.text, {
    default: "./data/events.db",
    meaning: "the SQLite file, when there is no Redis (in the image: `/data/events.db`)",
  }),
}

export const section: Section = {
  title: "Store: Redis, or one SQLite file",
  variables: [...Object.values(redis), ...Object.values(sqlite)],
}

const databaseNumber = Codec.count()

/** The database that a URL names after the host, or as redis-py writes it, `?db=2`. A problem names other queries. */
const databaseOf = (url: URL, reader: Reader): number => {
  for (const name of new Set(url.searchParams.keys())) {
    if (name !== "db")
      reader.problem("REDIS_URL", `no query but ?db= is known, got ${JSON.stringify(name.slice(0, 80))}`)
  }
  const named = [url.pathname.slice(1), ...url.searchParams.getAll("db")].filter((text) => text !== "")
  const numbers = [...new Set(named.map(databaseNumber.parse))]
  if (numbers.includes(undefined)) reader.problem("REDIS_URL", "expected a database number after the host")
  else if (numbers.length > 1) reader.problem("REDIS_URL", `names several databases: ${numbers.join(", ")}`)
  return numbers[0] ?? 0
}

/** What the files of certificates must have in them, so that a wrong one is found at the start and not by a handshake. */
const readCertificates = Effect.fnUntraced(function* (reader: Reader) {
  const file = <A>(
    name: string,
    path: string | undefined,
    what: string,
    parse: (content: Buffer) => A,
  ): A | undefined => {
    if (path === undefined) return undefined
    let content: Buffer
    try {
      content = readFileSync(path)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      reader.problem(name, `expected a readable file, got ${code} for ${path}`)
      return undefined
    }
    try {
      return parse(content)
    } catch {
      reader.problem(name, `expected ${what}, got something else in ${path}`)
      return undefined
    }
  }
  const caFile = yield* reader.get(redis.caFile)
  const certFile = yield* reader.get(redis.certFile)
  const keyFile = yield* reader.get(redis.keyFile)
  const inPem = "a certificate in PEM"
  const certificate = (content: Buffer) => new X509Certificate(content)
  file("REDIS_CA_FILE", caFile, inPem, certificate)
  const cert = file("REDIS_CERT_FILE", certFile, inPem, certificate)
  const key = file("REDIS_KEY_FILE", keyFile, "a private key in PEM without a passphrase", createPrivateKey)
  if (certFile !== undefined && keyFile === undefined)
    reader.problem("REDIS_CERT_FILE", "expected REDIS_KEY_FILE beside it")
  if (keyFile !== undefined && certFile === undefined)
    reader.problem("REDIS_KEY_FILE", "expected REDIS_CERT_FILE beside it")
  if (cert && key && !cert.checkPrivateKey(key))
    reader.problem("REDIS_KEY_FILE", "expected the key of the certificate in REDIS_CERT_FILE, got another")
  return { caFile, certFile, keyFile }
})

/** Of several URLs the first says all but the host; what another one says differently would be lost. */
const sameInAll = (urls: ReadonlyArray<URL>, reader: Reader): void => {
  const parts = {
    protocol: (url: URL) => url.protocol,
    user: (url: URL) => url.username,
    password: (url: URL) => url.password,
    database: (url: URL) => `${url.pathname.slice(1)}${url.search}`,
  }
  for (const [what, part] of Object.entries(parts)) {
    const others = urls.slice(1).map(part)
    const first = urls[0] && part(urls[0])
    if (others.some((other) => other !== "" && other !== first))
      reader.problem("REDIS_URL", `expected the same ${what} for all nodes`)
  }
}

/** The store of these variables; what is wrong with them is in the reader's problems. */
export const readStore = Effect.fnUntraced(function* (
  reader: Reader,
): Effect.fn.Return<RedisConfig | SqliteConfig> {
  const urls = yield* reader.get(redis.url)
  const host = yield* reader.get(redis.host)
  const port = yield* reader.get(redis.port)
  const password = yield* reader.get(redis.password)
  const sentinelMaster = yield* reader.get(redis.sentinelMaster)
  const sentinelUsername = yield* reader.get(redis.sentinelUsername)
  const sentinelPassword = yield* reader.get(redis.sentinelPassword)
  const cluster = (yield* reader.get(redis.cluster)) === "true"
  const certificates = yield* readCertificates(reader)
  const path = yield* reader.get(sqlite.path)

  if (reader.isSet("REDIS_URL") && host !== undefined) {
    reader.problem("REDIS_HOST", "set either REDIS_URL or REDIS_HOST, not both")
  }
  if (sentinelMaster !== undefined && cluster) {
    reader.problem("REDIS_CLUSTER", "set either REDIS_CLUSTER or REDIS_SENTINEL_MASTER, not both")
  }
  const needTls = {
    REDIS_CA_FILE: certificates.caFile,
    REDIS_CERT_FILE: certificates.certFile,
    REDIS_KEY_FILE: certificates.keyFile,
  }
  const needSentinels = {
    REDIS_SENTINEL_USERNAME: sentinelUsername,
    REDIS_SENTINEL_PASSWORD: sentinelPassword,
  }
  const need = (variables: Readonly<Record<string, unknown>>, what: string) => {
    for (const [name, value] of Object.entries(variables))
      if (value !== undefined) reader.problem(name, `expected ${what} beside it`)
  }
  const first = urls?.[0]
  if (first === undefined && host === undefined) {
    if (!reader.isSet("REDIS_URL")) {
      const needRedis = { REDIS_PORT: port, REDIS_PASSWORD: password, REDIS_SENTINEL_MASTER: sentinelMaster }
      need({ ...needRedis, ...needSentinels, ...needTls }, "REDIS_URL or REDIS_HOST")
    }
    return { _tag: "Sqlite", path }
  }
  const tls = first?.protocol === "rediss:"
  if (!tls) need(needTls, "a REDIS_URL that starts with rediss://")
  if (sentinelMaster === undefined) need(needSentinels, "REDIS_SENTINEL_MASTER")
  else if (sentinelUsername !== undefined && !reader.isSet("REDIS_SENTINEL_PASSWORD"))
    reader.problem("REDIS_SENTINEL_USERNAME", "expected REDIS_SENTINEL_PASSWORD beside it")
  if (urls !== undefined && urls.length > 1 && sentinelMaster === undefined && !cluster) {
    reader.problem("REDIS_URL", "several need REDIS_SENTINEL_MASTER or REDIS_CLUSTER beside them")
  }
  sameInAll(urls ?? [], reader)
  const database = first ? databaseOf(first, reader) : 0
  if (cluster && database !== 0) reader.problem("REDIS_URL", "a cluster has only database 0")
  const ownPassword = first?.password ? percentDecoded(first.password) : undefined
  if (ownPassword !== undefined && password !== undefined && password !== ownPassword)
    reader.problem("REDIS_PASSWORD", "REDIS_URL has another password: set one of them")
  const secret = ownPassword ?? password
  const inFiles = ["REDIS_URL", "REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD"].some((name) =>
    reader.isFromFile(name),
  )
  return {
    _tag: "Redis",
    mode: sentinelMaster !== undefined ? "sentinel" : cluster ? "cluster" : "standalone",
    nodes: urls
      ? urls.map((url) => ({
          // An IPv6 address is in brackets in a URL, and nowhere else.
          host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
          port: Number(url.port || (sentinelMaster ? 26379 : 6379)),
        }))
      : [{ host: host!, port: port ?? 6379 }],
    tls,
    ...certificates,
    username: first?.username ? percentDecoded(first.username) : undefined,
    password: secret === undefined ? undefined : Redacted.make(secret),
    database,
    sentinelMaster,
    sentinelUsername,
    sentinelPassword: sentinelPassword === undefined ? undefined : Redacted.make(sentinelPassword),
    renewed: inFiles ? renewed(reader) : undefined,
  }
})

const renewed = (reader: Reader): Effect.Effect<RedisConfig | undefined> =>
  Effect.suspend(() => {
    const again = reader.again()
    return Effect.map(readStore(again), (store) =>
      again.problems.length === 0 && store._tag === "Redis" ? store : undefined,
    )
  })
