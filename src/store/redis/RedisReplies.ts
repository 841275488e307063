/** The arguments of the scripts, and what their answers mean. */
import { randomUUID } from "node:crypto"
import type { ChainId, Hex } from "../../Domain.ts"
import type { Conflict, FilterChanged, Journal, Position, Push } from "../Journal.ts"
import type { PauseReason, Trimmed } from "../Retention.ts"
import type { Acknowledged, Added } from "../JournalStore.ts"
import { pack } from "./MessagePack.ts"
import { release } from "./RedisStats.ts"

export type Reply = readonly [string, ...ReadonlyArray<string | number>]

export const conflictOf = ([, number, hash, part, digest]: Reply): Conflict => ({
  _tag: "Conflict",
  head:
    hash === undefined
      ? undefined
      : {
          number: Number(number),
          hash: hash as Hex | "",
          part: Number(part),
          ...(digest && { digest: String(digest) }),
        },
})

/** Decodes the answer to a move that was not applied. */
export const rejectionOf = (reply: Reply): Conflict | FilterChanged =>
  reply[0] === "filter" ? { _tag: "FilterChanged", filter: String(reply[1]) } : conflictOf(reply)

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

export const trimmedOf = (
  [, dropped, reader, behind, length, why]: Reply,
  [stream, , , , readers]: ReadonlyArray<string>,
): Trimmed => {
  if (!reader) return { dropped: Number(dropped), holder: undefined }
  const [, kind, name = ""] = /^(\w+):(.*)$/s.exec(String(reader)) ?? []
  return {
    dropped: Number(dropped),
    holder: {
      reader: String(reader),
      behind: Number(behind),
      length: Number(length),
      paused: (why || undefined) as PauseReason | undefined,
      release: release[kind as keyof typeof release](name, stream!, readers!),
    },
  }
}

/** The digest of a part, if it was written together with this part: see journal.lua. */
const digestOf = (stored: string | undefined, mark: string): { digest?: string } =>
  stored?.startsWith(mark) ? { digest: stored.slice(mark.length) } : {}

export const journalOf = (
  head: Record<string, string>,
  members: ReadonlyArray<string>,
): Journal | undefined => {
  if (head["number"] === undefined) return undefined
  const { final_number: finalNumber, final_hash: finalHash } = head
  return {
    head: {
      number: Number(head["number"]),
      hash: head["hash"] as Hex | "",
      part: Number(head["part"]),
      ...digestOf(head["part_digest"], `${head["hash"]}:${head["part"]}:${head["added"]}:`),
    },
    final: finalNumber === undefined ? undefined : { number: Number(finalNumber), hash: finalHash as Hex },
    start: { number: Number(head["start_number"]), hash: head["start_hash"] as Hex | "" },
    filter: head["filter"] ?? "",
    filterSince: Number(head["filter_since"]),
    window: members.map((member) => {
      const [number, hash, parentHash, , , count] = member.split(" ")
      return {
        number: Number(number),
        hash: hash as Hex,
        parentHash: parentHash as Hex,
        count: Number(count),
      }
    }),
  }
}
