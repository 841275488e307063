/** Decodes the reply of `stats.lua`: consumer groups, readers, what they have missed, and which of them delays trimming. */
import { delayingReader, isPinned } from "../Retention.ts"
import type { Retention } from "../Retention.ts"
import { fieldsOf, releaseOf } from "./RedisChains.ts"
import type { Keys } from "./RedisChains.ts"
import type { Epoch, Group, Reader, Stats } from "../StoreAdmin.ts"

/** What `stats.lua` returns. */
export type StatsReply = readonly [
  added: string | null,
  firstNumber: string | null,
  epoch: string | null,
  reason: string | null,
  paused: string,
  aliveAgo: number | null,
  entries: number,
  keep: number,
  first: string | null,
  last: string | null,
  bytes: number | null,
  groups: ReadonlyArray<ReadonlyArray<string | number | null>> | null,
  readers: ReadonlyArray<readonly [name: string, json: string, id: string, lag: number | null]>,
  missed: ReadonlyArray<string>,
]

const groupOf = (
  flat: ReadonlyArray<string | number | null>,
  missed: Readonly<Record<string, string>>,
): Group => {
  const group = fieldsOf(flat as ReadonlyArray<string>)
  const lag = group["lag"] as string | null | undefined
  return {
    name: String(group["name"]),
    consumers: Number(group["consumers"]),
    pending: Number(group["pending"]),
    lag: lag === undefined || lag === null ? undefined : Number(lag),
    idle: group["idle"] === undefined ? undefined : Number(group["idle"]) / 1000,
    lastDelivered: String(group["last-delivered-id"]),
    missed: Number(missed[`group:${group["name"]}`] ?? 0),
  }
}

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value)

const readerOf = (
  [name, json, id, lag]: StatsReply[12][number],
  added: number,
  entries: number,
  missed: Readonly<Record<string, string>>,
): Reader => {
  let { block, offset, seen }: Readonly<Record<string, unknown>> = {}
  try {
    ;({ block, offset, seen } = JSON.parse(json) as Readonly<Record<string, unknown>>)
  } catch {
    // Any client may write to this hash.
  }
  const unread = isNumber(offset) ? added - offset : Number.NaN
  return {
    name,
    id,
    block: isNumber(block) ? block : undefined,
    seen: isNumber(seen) ? seen : undefined,
    lag: lag ?? (unread >= 0 && unread <= entries ? unread : undefined),
    missed: Number(missed[`reader:${name}`] ?? 0),
  }
}

export const statsOf = (
  [
    addedText,
    firstNumber,
    token,
    reason,
    paused,
    aliveAgo,
    entries,
    keep,
    first,
    last,
    bytes,
    groupsFound,
    readersFound,
    missedFlat,
  ]: StatsReply,
  retention: Retention,
  keys: Keys,
): Stats => {
  const added = Number(addedText ?? 0)
  const missed = fieldsOf(missedFlat)
  const groups = (groupsFound ?? []).map((flat) => groupOf(flat, missed))
  const readers = readersFound.map((found) => readerOf(found, added, entries, missed))
  const isNamed = ({ name }: Group) => retention.groups.includes("*") || retention.groups.includes(name)
  // As in retention.lua: without the right to list groups, the position of the named ones is unknown.
  const unlisted = retention.groups
    .slice(0, 1)
    .map((name) => ({ name, lastDelivered: "0-0", lag: undefined }))
  const pinnedGroups = groupsFound === null ? unlisted : groups.filter(isNamed)
  const now = Date.now() / 1000
  const pinned = [
    ...pinnedGroups.map(({ name, lastDelivered: id, lag }) => ({ reader: `group:${name}`, id, lag })),
    ...readers
      .filter(({ seen }) => isPinned(seen, now))
      .map(({ name, id, lag }) => ({ reader: `reader:${name}`, id, lag })),
  ]
  const holder = retention.maxLength === 0 ? undefined : delayingReader(pinned, entries, keep)
  return {
    entries,
    trimmed: Math.max(added - entries, 0),
    previous: Math.max(entries - added, 0),
    firstNumber: firstNumber ? Number(firstNumber) : undefined,
    epoch: token ? { token, reason: reason as Epoch["reason"] } : undefined,
    firstId: first ?? undefined,
    lastId: last ?? undefined,
    bytes: bytes ?? undefined,
    groups,
    readers,
    holder: holder && { reader: holder.reader, lag: holder.lag, release: releaseOf(holder.reader, keys) },
    paused: paused === "1",
    aliveAgo: aliveAgo ?? undefined,
  }
}
