/** Where the journals go: the variables of Redis, or of the SQLite file. */
import { Effect, Equal, Redacted } from "effect"
import { createPrivateKey, X509Certificate } from "node:crypto"
import { readFileSync } from "node:fs"
import * as Codec from "./Codec.ts"
import { unreadable } from "./Environment.ts"
import { percentDecoded } from "../Redactor.ts"
import { variable } from "./Variable.ts"
import type { Reader, Section, Values } from "./Variable.ts"

export interface RedisConfig extends Omit<Values<typeof redis>, "url" | "host" | "port" | "cluster"> {
  readonly _tag: "Redis"
  readonly mode: "standalone" | "sentinel" | "cluster"
  readonly nodes: ReadonlyArray<{ readonly host: string; readonly port: number }>
  readonly tls: boolean
  readonly username: string | undefined
  readonly database: number
  /** Where secrets are in files: the same with the files read again, if they still are what they should be. */
  readonly renewed: Effect.Effect<RedisConfig | undefined> | undefined
}

export interface SqliteConfig {
  readonly _tag: "Sqlite"
  readonly path: string
}

const systems = { Redis: "redis", Sqlite: "sqlite" } as const

/** The name of the store in the log, in `/status` and in traces (OpenTelemetry's `db.system.name`). */
export const systemOf = ({ _tag }: RedisConfig | SqliteConfig): "redis" | "sqlite" => systems[_tag]

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
  password: variable("REDIS_PASSWORD", Codec.secret, {
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
  sentinelPassword: variable("REDIS_SENTINEL_PASSWORD", Codec.secret, {
    isSecret: true,
    meaning: "the password of the sentinels themselves",
  }),
  cluster: variable("REDIS_CLUSTER", Codec.either("true", "false"), {
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

/** Parses the file at `path`; that it cannot be read or is something else is a problem of the variable `name`. */
const parseFile = <A>(
  reader: Reader,
  name: string,
  path: string | undefined,
  what: string,
  parse: (content: Buffer) => A,
): A | undefined => {
  if (path === undefined) return undefined
  try {
    return parse(readFileSync(path))
  } catch (error) {
    const isUnread = (error as NodeJS.ErrnoException).syscall !== undefined
    reader.problem(
      name,
      isUnread ? `${unreadable(error)} for ${path}` : `expected ${what}, got something else in ${path}`,
    )
    return undefined
  }
}

/** Checks the files of certificates, so that a wrong one is found at the start and not by a handshake. */
const checkCertificates = (reader: Reader, { caFile, certFile, keyFile }: Values<typeof redis>): void => {
  const certificateIn = (name: string, path: string | undefined) =>
    parseFile(reader, name, path, "a certificate in PEM", (content) => new X509Certificate(content))
  certificateIn("REDIS_CA_FILE", caFile)
  const certificate = certificateIn("REDIS_CERT_FILE", certFile)
  const inPem = "a private key in PEM without a passphrase"
  const key = parseFile(reader, "REDIS_KEY_FILE", keyFile, inPem, createPrivateKey)
  if (certificate && key && !certificate.checkPrivateKey(key))
    reader.problem("REDIS_KEY_FILE", "expected the key of the certificate in REDIS_CERT_FILE, got another")
}

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
  const given = yield* reader.all(redis)
  const { url: urls = [], host, port, cluster, ...others } = given
  const { sentinelMaster } = others
  const { path } = yield* reader.all(sqlite)
  /** Reports each of these variables that is set, where another one that it needs is not. */
  const need = (what: string, ...keys: ReadonlyArray<keyof typeof redis>) => {
    for (const key of keys)
      if (given[key] !== undefined) reader.problem(redis[key].name, `expected ${what} beside it`)
  }
  checkCertificates(reader, given)
  if (given.keyFile === undefined) need("REDIS_KEY_FILE", "certFile")
  if (given.certFile === undefined) need("REDIS_CERT_FILE", "keyFile")
  if (reader.isSet("REDIS_URL") && host !== undefined)
    reader.problem("REDIS_HOST", "set either REDIS_URL or REDIS_HOST, not both")
  if (sentinelMaster !== undefined && cluster)
    reader.problem("REDIS_CLUSTER", "set either REDIS_CLUSTER or REDIS_SENTINEL_MASTER, not both")

  const ofSentinels = ["sentinelUsername", "sentinelPassword"] as const
  const ofTls = ["caFile", "certFile", "keyFile"] as const
  const [first] = urls
  if (first === undefined && host === undefined) {
    if (!reader.isSet("REDIS_URL"))
      need("REDIS_URL or REDIS_HOST", "port", "password", "sentinelMaster", ...ofSentinels, ...ofTls)
    return { _tag: "Sqlite", path }
  }
  const tls = first?.protocol === "rediss:"
  if (!tls) need("a REDIS_URL that starts with rediss://", ...ofTls)
  if (sentinelMaster === undefined) need("REDIS_SENTINEL_MASTER", ...ofSentinels)
  else if (!reader.isSet("REDIS_SENTINEL_PASSWORD")) need("REDIS_SENTINEL_PASSWORD", "sentinelUsername")
  if (urls.length > 1 && sentinelMaster === undefined && !cluster)
    reader.problem("REDIS_URL", "several need REDIS_SENTINEL_MASTER or REDIS_CLUSTER beside them")
  sameInAll(urls, reader)
  const database = first ? databaseOf(first, reader) : 0
  if (cluster && database !== 0) reader.problem("REDIS_URL", "a cluster has only database 0")
  const ownPassword = first?.password ? Redacted.make(percentDecoded(first.password)) : undefined
  const password = ownPassword ?? given.password
  if (given.password !== undefined && !Equal.equals(password, given.password))
    reader.problem("REDIS_PASSWORD", "REDIS_URL has another password: set one of them")
  const inFiles = Object.values(redis).some((one) => "isSecret" in one && reader.isFromFile(one.name))
  return {
    ...others,
    _tag: "Redis",
    mode: sentinelMaster !== undefined ? "sentinel" : cluster ? "cluster" : "standalone",
    nodes:
      host !== undefined && first === undefined
        ? [{ host, port: port ?? 6379 }]
        : urls.map((url) => ({
            // An IPv6 address is in brackets in a URL, and nowhere else.
            host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
            port: Number(url.port || (sentinelMaster ? 26379 : 6379)),
          })),
    tls,
    username: first?.username ? percentDecoded(first.username) : undefined,
    password,
    database,
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
