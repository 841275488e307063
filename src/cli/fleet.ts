/** The fleet in `status`: who is present and follows what. In `check`: whether its keys may be written. */
import { Duration, Effect } from "effect"
import { randomUUID } from "node:crypto"
import { AppConfig } from "../config/AppConfig.ts"
import type { Settings } from "../config/AppConfig.ts"
import type { StoreError } from "../store/StoreError.ts"
import { about, failure, ok } from "./Finding.ts"
import type { Finding } from "./Finding.ts"
import { style } from "./Output.ts"

/** For connecting, and for one command. */
const timeout = Duration.seconds(5)

/** Effect's cluster is loaded only where a fleet is configured. */
const script = Effect.promise(() => import("../fleet/FleetScript.ts"))

/** The configured fleet and the Redis that it meets on; `undefined` without a fleet. */
const configured = ({ fleet, store, streamPrefix, chains }: Settings) =>
  fleet === undefined || store._tag === "Sqlite"
    ? undefined
    : { name: fleet.name, store, streamPrefix, chains }

/** The fleet as one JSON object: `members` and `chains` are `null` if it cannot be read. */
interface Report {
  readonly fleet: string
  readonly error: string | null
  readonly members: ReadonlyArray<string> | null
  /** The replica that follows each chain; `null`: none does. */
  readonly chains: Readonly<Record<string, string | null>> | null
}

/** The configured fleet, if there is one. A fleet that cannot be read is no failure: its error is part of the report. */
export const fleetReport = Effect.fnUntraced(function* (selected: ReadonlyArray<string>) {
  const fleet = configured(yield* AppConfig)
  if (fleet === undefined) return []
  const { keyPrefix, list, makeCall } = yield* script
  const call = yield* makeCall(fleet.store, keyPrefix(fleet.streamPrefix, fleet.name, fleet.chains), timeout)
  const names = fleet.chains.map(({ name }) => name)
  return yield* list(call, names).pipe(
    Effect.map(({ members, holders }): ReadonlyArray<Report> => [
      {
        fleet: fleet.name,
        error: null,
        members,
        chains: Object.fromEntries(selected.map((name) => [name, holders.get(name) ?? null])),
      },
    ]),
    Effect.catch(({ message }) =>
      Effect.succeed([{ fleet: fleet.name, error: message, members: null, chains: null }]),
    ),
  )
}, Effect.scoped)

/** The lines of `status` about a fleet. */
export const renderFleet = ({ fleet, error, members, chains }: Report): ReadonlyArray<string> => {
  const title = style(1, `fleet ${fleet}`)
  if (members === null || chains === null)
    return [`${title}  ${style(31, "its replicas, and what each follows, are unknown")}: ${error}`]
  const followed = Object.entries(chains)
  const of = (replica: string | null) => followed.filter(([, by]) => by === replica).map(([name]) => name)
  const holders = followed.flatMap(([, by]) => by ?? [])
  const left = of(null)
  return [
    members.length === 0
      ? `${title}  ${style(31, "no replica is a member")} (with other chains or filters, replicas are another fleet)`
      : `${title}  ${members.length} ${members.length === 1 ? "member" : "members"}`,
    ...[...new Set([...members, ...holders])].map(
      (replica) => `  ${replica} follows ${of(replica).join(", ") || "none of these chains"}`,
    ),
    ...(left.length > 0 ? [`  ${style(31, "no replica follows")} ${left.join(", ")}`] : []),
  ]
}

/** What to grant for an error of the ACL of Redis, which does not name a command of a script; `undefined` for any other error. */
const grant = ({ detail }: StoreError, keys: string): string | undefined => {
  if (/can't run this command|run the '/.test(detail))
    return "give its user +@hash +@sortedset +pexpire +time +eval +evalsha"
  return /NOPERM|ACL failure|can't access/.test(detail) ? `give its user the keys ${keys}` : undefined
}

/** Calls the fleet's script as a replica does, on keys beside those of the fleet, which expire within a second. */
export const fleetFindings = Effect.fnUntraced(function* (settings: Settings) {
  const fleet = configured(settings)
  const none: ReadonlyArray<Finding> = []
  if (fleet === undefined) return none
  const { keyPrefix, makeCall } = yield* script
  const keys = keyPrefix(fleet.streamPrefix, fleet.name, fleet.chains)
  const call = yield* makeCall(fleet.store, `${keys}:check-${randomUUID()}`, timeout)
  const calls = [
    ["hold", "shard"],
    ["list"],
    ["report", "chain", "{}"],
    ["reports"],
    ["release", "shard"],
    ["leave"],
  ] as const
  return yield* Effect.forEach(
    calls,
    ([verb, ...args]) => call(verb, verb, "10", "check", "check", ...args),
    {
      discard: true,
    },
  ).pipe(
    Effect.match({
      onSuccess: () => ok(`fleet ${fleet.name}: its keys ${keys}:* can be written`),
      onFailure: (error) =>
        failure(
          `fleet ${fleet.name}: replicas cannot share the chains: ${error.message}`,
          grant(error, `~{${fleet.streamPrefix}:fleet:${fleet.name}:*`),
        ),
    }),
    Effect.map((trait) => [about("store fleet", trait)]),
  )
}, Effect.scoped)
