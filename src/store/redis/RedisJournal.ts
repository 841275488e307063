/** The journal of each chain: each move is one Lua script on keys of one slot. */
import { Duration, Effect } from "effect"
import { randomUUID } from "node:crypto"
import type { ChainId, Hex } from "../../Domain.ts"
import type { CallLimits, Conflict, FilterChanged, Journal, Position, Push } from "../Journal.ts"
import type { Acknowledged, Added, EpochCheck, JournalStore } from "../JournalStore.ts"
import type { PauseReason, Retention, Trimmed } from "../Retention.ts"
import { journalOf } from "../StoredHead.ts"
import type { StoredHead } from "../StoredHead.ts"
import { corruptJournal } from "../StoreError.ts"
import { freeBuffer } from "../../Memory.ts"
import { pack } from "./MessagePack.ts"
import { fieldsOf, releaseOf, retentionArg } from "./RedisChains.ts"
import type { Keys, RedisChains, Reply } from "./RedisChains.ts"

/** The timeout of a probe: short, so that a store that is available again is noticed at once. */
const probeTimeout = Duration.seconds(1)

/** Decodes the answer to a move that was not applied. */
const rejectionOf = ([answer, number, hash, part, digest]: Reply): Conflict | FilterChanged => {
  if (answer === "filter") return { _tag: "FilterChanged", filter: String(number) }
  if (hash === undefined) return { _tag: "Conflict", head: undefined }
  const head = { number: Number(number), hash: hash as Hex | "", part: Number(part) }
  return { _tag: "Conflict", head: digest ? { ...head, digest: String(digest) } : head }
}

const positionArgs = ({ number, hash, part, digest = "" }: Position) => [`${number}`, hash, `${part}`, digest]

/** @param logs as `pack` encodes them */
const pushArgs = (
  chain: ChainId,
  filter: string,
  { expected, blocks, final }: Push,
  retention: string,
  logs: Buffer,
) => {
  const args: Array<string | Buffer> = [filter, ...positionArgs(expected), String(chain), retention]
  args.push(final ? "1" : "0", String(blocks.length), blocks.at(-1)!.digest ?? "", randomUUID(), logs)
  args.push(blocks[0].abi ?? "")
  for (const { number, hash, parentHash, timestamp, whole, traceparent, logs } of blocks) {
    args.push(String(number), hash, parentHash, String(timestamp), whole ? "1" : "0", traceparent ?? "")
    args.push(String(logs.length))
  }
  return args
}

type Value = Reply[number] | undefined

const acknowledged = (id: Value, identity: Value, epoch: Value): Acknowledged | undefined =>
  id ? { id: String(id), identity: String(identity), epoch: String(epoch) } : undefined

/** The entries that a move has appended, if any. */
const addedOf = ([id, identity, epoch, previousId, previous]: ReadonlyArray<Value>): {
  added?: Added
} => {
  const last = acknowledged(id, identity, epoch)
  return last ? { added: { last, previous: acknowledged(previousId, previous, epoch) } } : {}
}

const trimmedOf = ([, dropped, reader, behind, length, why]: Reply, keys: Keys): Trimmed => ({
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

/** Decodes the records of the window, as common.lua writes them. */
const windowOf = (members: ReadonlyArray<string>): Journal["window"] =>
  members.map((member) => {
    const [number, hash, parentHash, , , count] = member.split(" ")
    return { number: Number(number), hash: hash as Hex, parentHash: parentHash as Hex, count: Number(count) }
  })

export const make = (
  { commandOf, keyOf, keysOf, script }: RedisChains,
  kept: Retention,
  limits: CallLimits,
): JournalStore["Service"] => {
  const retention = retentionArg(kept)
  return {
    limits,
    ping: (chain) =>
      Effect.asVoid(
        commandOf(chain)(
          "ping",
          (client) => client.probe(...keysOf(chain), keyOf(chain, "ping")),
          probeTimeout,
        ),
      ),
    load: (chain) =>
      Effect.flatMap(script("load", "load", chain, []), (reply) => {
        if (reply[0] === "corrupt") return Effect.fail(corruptJournal(chain, String(reply[1])))
        const [flat, window] = reply as unknown as readonly [ReadonlyArray<string>, ReadonlyArray<string>]
        const head = fieldsOf(flat) as unknown as StoredHead
        return Effect.succeed(head.number === undefined ? undefined : journalOf(head, windowOf(window)))
      }),
    push: (chain, filter, push) => {
      const logs = pack(push.blocks)
      return Effect.map(
        script("push", "push", chain, pushArgs(chain, filter, push, retention, logs)),
        (reply) => {
          freeBuffer(logs)
          if (reply[0] === "pushed") return { _tag: "Pushed", ...addedOf(reply.slice(1)) }
          if (reply[0] === "paused") return { _tag: "Paused" }
          return reply[0] === "duplicate" ? { _tag: "Duplicate" } : rejectionOf(reply)
        },
      )
    },
    pop: (chain, filter, { expected }) => {
      const args = [filter, ...positionArgs(expected), String(limits.logs)]
      return Effect.map(script("pop", "pop", chain, args), (reply) => {
        const [answer, removed, missing, ...added] = reply
        if (answer !== "popped") return rejectionOf(reply)
        return { _tag: "Popped", removed: Number(removed), missing: Number(missing), ...addedOf(added) }
      })
    },
    finalize: (chain, filter, { expected, number, hash }) => {
      const args = [filter, ...positionArgs(expected), String(number), hash, retention]
      return Effect.map(script("finalize", "finalize", chain, args), (reply) =>
        reply[0] === "finalized" ? { _tag: "Finalized" } : rejectionOf(reply),
      )
    },
    checkEpoch: (chain, known) => {
      const { id = "", identity = "", epoch = "" } = known?.last ?? {}
      const args = [id, identity, epoch, randomUUID(), ...(known?.before ?? [])]
      return Effect.map(
        script("epoch", "epoch check", chain, args),
        ([outcome, epoch, before, id, identity]) => ({
          outcome: outcome as EpochCheck["outcome"],
          known: {
            last: acknowledged(id, identity, epoch),
            before: String(before)
              .split(" ")
              .filter((one) => one !== ""),
          },
        }),
      )
    },
    changeFilter: (chain, filter, description = "", configVersion) =>
      Effect.map(
        script("takeover", "filter change", chain, [filter, description, String(configVersion ?? "")]),
        ([outcome]) => (outcome === "outdated" ? "outdated" : "changed"),
      ),
    trim: (chain, filter = "") =>
      Effect.map(script("trim", "trim", chain, [retention, randomUUID(), filter]), (reply) =>
        trimmedOf(reply, keysOf(chain)),
      ),
  }
}
