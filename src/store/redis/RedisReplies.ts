/** The arguments of the scripts, and what their answers mean. */
import { randomUUID } from "node:crypto"
import type { ChainId, Hex } from "../../Domain.ts"
import type { Conflict, FilterChanged, Journal, Position, Push } from "../Journal.ts"
import type { PauseReason, Retention, Trimmed } from "../Retention.ts"
import type { Acknowledged, Added } from "../JournalStore.ts"
import { pack } from "./MessagePack.ts"
import type { Keys, Reply } from "./RedisChains.ts"

/** `[field, value, …]` → an object. */
export const fieldsOf = (flat: ReadonlyArray<string>): Record<string, string> => {
  const fields: Record<string, string> = {}
  for (let i = 0; i < flat.length; i += 2) fields[flat[i]!] = flat[i + 1]!
  return fields
}

/** The command that releases `group:<name>` or `reader:<name>`, so that trimming no longer waits for it. */
export const releaseOf = (reader: string, [stream, , , , readers]: Keys): string => {
  const [kind, name] = [reader.slice(0, reader.indexOf(":")), reader.slice(reader.indexOf(":") + 1)]
  return kind === "group" ? `XGROUP DESTROY ${stream} ${name}` : `HDEL ${readers} ${name}`
}

/** How much of a stream is kept, as one argument. */
export const retentionArg = ({ maxLength, backlog, groups }: Retention): string =>
  [maxLength, backlog, ...groups].join("\n")

/** Decodes the answer to a move that was not applied. */
export const rejectionOf = ([answer, number, hash, part, digest]: Reply): Conflict | FilterChanged => {
  if (answer === "filter") return { _tag: "FilterChanged", filter: String(number) }
  if (hash === undefined) return { _tag: "Conflict", head: undefined }
  const head = { number: Number(number), hash: hash as Hex | "", part: Number(part) }
  return { _tag: "Conflict", head: digest ? { ...head, digest: String(digest) } : head }
}

export const positionArgs = ({ number, hash, part, digest }: Position) => [
  String(number),
  hash,
  String(part),
  digest ?? "",
]

export const pushArgs = (
  chain: ChainId,
  filter: string,
  { expected, blocks, final }: Push,
  retention: string,
) => {
  const args: Array<string | Buffer> = [filter, ...positionArgs(expected), String(chain), retention]
  args.push(final ? "1" : "0", String(blocks.length), blocks.at(-1)!.digest ?? "", randomUUID(), pack(blocks))
  for (const { number, hash, parentHash, timestamp, whole, traceparent, logs } of blocks) {
    args.push(String(number), hash, parentHash, String(timestamp), whole ? "1" : "0", traceparent ?? "")
    args.push(String(logs.length))
  }
  return args
}

type Value = Reply[number] | undefined

export const acknowledged = (id: Value, identity: Value, epoch: Value): Acknowledged | undefined =>
  id ? { id: String(id), identity: String(identity), epoch: String(epoch) } : undefined

/** The entries that a move has appended, if any. */
export const addedOf = ([id, identity, epoch, previousId, previous]: ReadonlyArray<Value>): {
  added?: Added
} => {
  const last = acknowledged(id, identity, epoch)
  return last ? { added: { last, previous: acknowledged(previousId, previous, epoch) } } : {}
}

export const trimmedOf = ([, dropped, reader, behind, length, why]: Reply, keys: Keys): Trimmed => ({
  dropped: Number(dropped),
  holder: reader
    ? {
        reader: String(reader),
        behind: Number(behind),
        length: Number(length),
        paused: (why || undefined) as PauseReason | undefined,
        release: releaseOf(String(reader), keys),
      }
    : undefined,
})

/** Decodes the records of the window, as journal.lua writes them. */
export const windowOf = (members: ReadonlyArray<string>): Journal["window"] =>
  members.map((member) => {
    const [number, hash, parentHash, , , count] = member.split(" ")
    return { number: Number(number), hash: hash as Hex, parentHash: parentHash as Hex, count: Number(count) }
  })
