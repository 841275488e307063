/** What the errors of Redis, and of the way to it, mean: one row or rule each. */
import type { StoreError, StoreReason } from "../StoreError.ts"

/** The meaning of an error's first word, or of a socket's error code. */
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
  // The server is a node of a cluster, not a standalone server.
  MOVED: "refused",
  ASK: "refused",
  DENIED: "refused",
  WRONGTYPE: "corrupt",
}

/** Hints for errors that do not say what to do. */
export const hints = [
  [/^MOVED |^ASK /, "this is a node of a cluster: set REDIS_CLUSTER=true"],
  [/cluster support disabled/, "set REDIS_CLUSTER only for a cluster"],
  [/^-?READONLY /, "this is a replica: name its master, or set REDIS_SENTINEL_MASTER"],
  [
    /^All sentinels.*(NOAUTH|WRONGPASS)/,
    "set REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD to the credentials of the sentinels",
  ],
  [/alert certificate required/, "set REDIS_CERT_FILE and REDIS_KEY_FILE"],
] as const

/** The client's text around the last error of a sentinel. */
const sentinelPrefix = /^All sentinels are unreachable.* Last error: (?=[A-Z])/

/** Redis 6.2 puts the error of a command inside a script behind the error of the script. */
const scriptError = /@user_script: ?\d+: -?([A-Z]+)\b/

/** Why Redis, or the way to it, failed, according to the error message. */
export const reasonOf = (message: string): StoreReason => {
  // Redis 6.2 reports these from a script without an error code.
  if (/unknown redis command|user executing the script can't/i.test(message)) return "refused"
  // The server has reached its connection limit for now.
  if (/max number of clients|max concurrent connections/.test(message)) return "unreachable"
  // The quota of a managed server.
  if (/capacity quota exceeded|single record size exceeded/.test(message)) return "full"
  const inside = scriptError.exec(message)?.[1]
  const own = /^-?([A-Z]+)\b/.exec(message.replace(sentinelPrefix, ""))?.[1]
  const word = inside !== undefined && inside in reasons ? inside : own
  return reasons[word ?? ""] ?? "unreachable"
}

/** Whether the server, or a proxy in front of it, withholds a command from this user. */
export const isWithheld = ({ reason, detail }: StoreError): boolean =>
  reason === "refused" &&
  /^NOPERM|unknown (sub)?command|command (is )?not (available|allowed|supported|permitted)/i.test(detail)

/** After these errors the connection is useless: it leads to the wrong server, or nowhere, or is not authenticated. */
export const endsConnection = ({ reason, detail }: StoreError) =>
  reason === "unreachable" ||
  reason === "timeout" ||
  reason === "read-only" ||
  reason === "loading" ||
  /^(NOAUTH|WRONGPASS)/.test(detail)
