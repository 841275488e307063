/**
 * The epochs of each cluster, and the expected ones. A fault that sets the store back says what was certainly lost; after every
 * other fault the epoch must be unchanged.
 */
import { Effect, Random, Schedule } from "effect"
import { renameSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { chainId } from "../test/support/devnet.ts"
import type { Fault } from "./Fault.ts"
import { neighbourId } from "./Cluster.ts"
import type { Expected } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"

export interface Epochs {
  readonly token: string | undefined
  readonly reason: string | undefined
  /** Earlier epochs. */
  readonly before: ReadonlyArray<string>
}

const retryDelay = Schedule.spaced("20 millis")

const beforeOf = (cluster: Cluster, chain: number) =>
  Effect.tryPromise(async () => {
    if (cluster.file === undefined) {
      const before = await cluster.redis!.server.client.hget(`{events:${chain}}:head`, "epoch_before")
      return (before ?? "").split(" ").filter((one) => one !== "")
    }
    const database = new DatabaseSync(cluster.file, { readOnly: true, timeout: 5000 })
    try {
      const rows = database.prepare("SELECT epoch FROM epochs WHERE chain_id = ? ORDER BY id").all(chain)
      return rows.map(({ epoch }) => String(epoch))
    } finally {
      database.close()
    }
  })

export const epochsOf = (cluster: Cluster, chain = chainId): Effect.Effect<Epochs> =>
  Effect.gen(function* () {
    const { epoch } = yield* cluster.store.stats(chain)
    return { token: epoch?.token, reason: epoch?.reason, before: yield* beforeOf(cluster, chain) }
  }).pipe(Effect.retry({ schedule: retryDelay, times: 500 }), Effect.orDie)

/** How many epochs began, and why that is not as expected. */
export const compareEpochs = (
  expected: Expected,
  before: Epochs,
  after: Epochs,
): { readonly began: number; readonly problem: string | undefined } => {
  const details = `expected: ${expected}; from ${JSON.stringify(before)} to ${JSON.stringify(after)}`
  const isSame = before.token === after.token
  // The store keeps the last twenty.
  const grew = [...before.before, before.token].slice(-20).join(" ") === after.before.join(" ")
  const isOne = !isSame && after.reason === "lost" && grew
  const isRight = {
    kept: isSame,
    lost: isOne,
    perhaps: isSame || isOne,
    begun: !isSame && after.reason === "begun" && after.before.length === 0,
    reset: !isSame && after.reason === "reset",
  }[expected]
  return { began: isSame ? 0 : 1, problem: isRight ? undefined : `epochs are wrong: ${details}` }
}

/** The epochs of the chain, and of the neighbour chain if there is one. */
export const allEpochs = (cluster: Cluster) =>
  Effect.all([epochsOf(cluster), ...(cluster.neighbour ? [epochsOf(cluster, neighbourId)] : [])])

/** Longer than an acknowledgement takes, and shorter than the time that is lost. */
const acknowledged = "400 millis"

/** The last entry of the chain, once it has certainly been acknowledged. The chain grows, so there is one. */
export const lastAcknowledged = (cluster: Cluster) =>
  Effect.gen(function* () {
    const { lastId } = yield* cluster.store.stats(chainId)
    yield* Effect.sleep(acknowledged)
    return lastId!
  })

/** Sets the expected epoch after an older copy of the store was restored: `isGone` if an acknowledged entry is missing. */
export const expectEpoch = (cluster: Cluster, isGone: boolean) => {
  cluster.epoch = isGone ? "lost" : "perhaps"
}

/** Replaces the file by an older copy while the service has it open. */
export const olderFile: Fault = {
  name: "an older copy of the file restored",
  stores: ["sqlite"],
  times: 3,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const copy = `${cluster.file!}.${yield* Random.nextIntBetween(0, 1_000_000_000)}`
      const database = new DatabaseSync(cluster.file!, { timeout: 5000 })
      database.prepare("VACUUM INTO ?").run(copy)
      database.close()
      const copied = new DatabaseSync(copy, { readOnly: true })
      const row = copied.prepare("SELECT max(id) AS id FROM events WHERE chain_id = ?").get(chainId)
      copied.close()
      yield* Effect.sleep(yield* Random.nextIntBetween(1500, 4000))
      const last = yield* lastAcknowledged(cluster)
      renameSync(copy, cluster.file!)
      expectEpoch(cluster, Number(row!["id"]) < Number(last))
    }),
}
