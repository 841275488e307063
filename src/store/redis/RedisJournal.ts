/** The journal of each chain: each move is one Lua script on keys of one slot. */
import { Duration, Effect } from "effect"
import { randomUUID } from "node:crypto"
import type { CallLimits } from "../Journal.ts"
import type { EpochCheck, JournalStore } from "../JournalStore.ts"
import type { Retention } from "../Retention.ts"
import { journalOf } from "../StoredHead.ts"
import type { StoredHead } from "../StoredHead.ts"
import { corruptJournal } from "../StoreError.ts"
import type { RedisChains } from "./RedisChains.ts"
import {
  acknowledged,
  addedOf,
  fieldsOf,
  positionArgs,
  pushArgs,
  rejectionOf,
  retentionArg,
  trimmedOf,
  windowOf,
} from "./RedisReplies.ts"

/** The timeout of a probe: short, so that a store that is available again is noticed at once. */
const probeTimeout = Duration.seconds(1)

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
    push: (chain, filter, push) =>
      Effect.map(script("push", "push", chain, pushArgs(chain, filter, push, retention)), (reply) => {
        if (reply[0] === "pushed") return { _tag: "Pushed", ...addedOf(reply.slice(1)) }
        if (reply[0] === "paused") return { _tag: "Paused" }
        return reply[0] === "duplicate" ? { _tag: "Duplicate" } : rejectionOf(reply)
      }),
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
    changeFilter: (chain, filter) => Effect.asVoid(script("takeover", "filter change", chain, [filter])),
    trim: (chain) =>
      Effect.map(script("trim", "trim", chain, [retention, randomUUID()]), (reply) =>
        trimmedOf(reply, keysOf(chain)),
      ),
  }
}
