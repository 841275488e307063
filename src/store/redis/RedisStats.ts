/** What `stats.lua` tells of a stream: its consumer groups and readers, what they missed, and which of them is waited for. */
import { pinnedFor, waitingFor } from "../Retention.ts"
import type { Retention, Standing } from "../Retention.ts"
import type { Epoch, Group, Reader, Stats } from "../Store.ts"

/** `[field, value, …]` → an object. */
export const fieldsOf = (flat: ReadonlyArray<string>): Record<string, string> => {
  const fields: Record<string, string> = {}
  for (let i = 0; i < flat.length; i += 2) fields[flat[i]!] = flat[i + 1]!
  return fields
}

/** The commands after which a group or reader is not waited for any more. */
export const release = {
  group: (name: string, stream: string, _readers: string) => `XGROUP DESTROY ${stream} ${name}`,
  reader: (name: string, _stream: string, readers: string) => `HDEL ${readers} ${name}`,
}

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
    // Anybody may write to the hash.
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

/** @param keys those of the chain, as each script gets them */
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
  [stream, , , , readersKey]: ReadonlyArray<string>,
): Stats => {
  const added = Number(addedText ?? 0)
  const missed = fieldsOf(missedFlat)
  const groups = (groupsFound ?? []).map((flat) => groupOf(flat, missed))
  const readers = readersFound.map((found) => readerOf(found, added, entries, missed))
  const isPinned = (name: string) => retention.groups.includes("*") || retention.groups.includes(name)
  const now = Date.now() / 1000
  const pinned: ReadonlyArray<Standing> = [
    ...groups
      .filter(({ name }) => isPinned(name))
      .map(({ name, lastDelivered: id, lag }) => ({ kind: "group" as const, name, id, lag })),
    // As trimming has it: where groups may not be asked for, those that are named could be anywhere.
    ...(groupsFound === null && entries > 0 ? retention.groups.slice(0, 1) : []).map((name) => ({
      kind: "group" as const,
      name,
      id: "0-0",
      lag: undefined,
    })),
    ...readers
      .filter(({ seen }) => now - (seen ?? now) < pinnedFor)
      .map(({ name, id, lag }) => ({ kind: "reader" as const, name, id, lag })),
  ].map(({ kind, name, id, lag }) => ({
    reader: `${kind}:${name}`,
    id,
    lag,
    release: release[kind](name, stream!, readersKey!),
  }))
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
    holder: retention.maxLength === 0 ? undefined : waitingFor(pinned, entries, keep),
    paused: paused === "1",
    aliveAgo: aliveAgo ?? undefined,
  }
}
