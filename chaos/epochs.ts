/**
 * Which epochs there are on each rig, and which there must be. A fault that sets the store back says what was lost for sure;
 * after all others the epoch is the one that it was before.
 */
import { Effect, Random, Schedule } from "effect"
import { renameSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { chainId } from "../test/support/devnet.ts"
import type { Fault } from "./Campaign.ts"
import { neighbourId } from "./Rig.ts"
import type { Rig } from "./Rig.ts"

/**
 * What a fault makes of the epoch. `lost`: an entry that an ingestor knew is gone, so exactly one new epoch begins. `perhaps`:
 * none or one, because what is gone may be no more than an entry that was written and not acknowledged yet. `begun`, `reset`:
 * all is gone, and the journal begins anew.
 */
export type Expected = "kept" | "lost" | "perhaps" | "begun" | "reset"

export interface Epochs {
  readonly token: string | undefined
  readonly reason: string | undefined
  /** Those before it. */
  readonly before: ReadonlyArray<string>
}

const patience = Schedule.spaced("20 millis")

const beforeOf = (rig: Rig, chain: number) =>
  Effect.tryPromise(async () => {
    if (rig.file === undefined) {
      const before = await rig.redis!.server.client.hget(`{events:${chain}}:head`, "epoch_before")
      return (before ?? "").split(" ").filter((one) => one !== "")
    }
    const database = new DatabaseSync(rig.file, { readOnly: true, timeout: 5000 })
    try {
      const rows = database.prepare("SELECT epoch FROM epochs WHERE chain_id = ? ORDER BY id").all(chain)
      return rows.map(({ epoch }) => String(epoch))
    } finally {
      database.close()
    }
  })

export const epochsOf = (rig: Rig, chain = chainId): Effect.Effect<Epochs> =>
  Effect.gen(function* () {
    const { epoch } = yield* rig.store.stats(chain)
    return { token: epoch?.token, reason: epoch?.reason, before: yield* beforeOf(rig, chain) }
  }).pipe(Effect.retry({ schedule: patience, times: 500 }), Effect.orDie)

/** How many epochs began, and what is wrong with that. */
export const compareEpochs = (
  expected: Expected,
  before: Epochs,
  after: Epochs,
): { readonly began: number; readonly wrong: string | undefined } => {
  const told = `expected: ${expected}; from ${JSON.stringify(before)} to ${JSON.stringify(after)}`
  const isSame = before.token === after.token
  // The last twenty are kept.
  const grew = [...before.before, before.token].slice(-20).join(" ") === after.before.join(" ")
  const isOne = !isSame && after.reason === "lost" && grew
  const isRight = {
    kept: isSame,
    lost: isOne,
    perhaps: isSame || isOne,
    begun: !isSame && after.reason === "begun" && after.before.length === 0,
    reset: !isSame && after.reason === "reset",
  }[expected]
  return { began: isSame ? 0 : 1, wrong: isRight ? undefined : `epochs are wrong: ${told}` }
}

/** Those of the chain, and of the other one. */
export const allEpochs = (rig: Rig) =>
  Effect.all([epochsOf(rig), ...(rig.neighbour ? [epochsOf(rig, neighbourId)] : [])])

/** Longer than from an entry being written until the ingestor has its acknowledgement, and shorter than what is lost. */
const acknowledged = "400 millis"

/**
 * The last entry of the chain, when it has been acknowledged for sure; the chain grows, so that there is one.
 */
export const lastAcknowledged = (rig: Rig) =>
  Effect.gen(function* () {
    const { lastId } = yield* rig.store.stats(chainId)
    yield* Effect.sleep(acknowledged)
    return lastId!
  })

/** The store has come back: whether an entry that was acknowledged is gone. */
export const cameBack = (rig: Rig, isGone: boolean) => {
  rig.epoch = isGone ? "lost" : "perhaps"
}

/** A copy of the file takes the place of the file, under the service that has it open. */
export const olderFile: Fault = {
  name: "an older copy of the file comes back",
  stores: ["sqlite"],
  times: 3,
  inflict: (rig) =>
    Effect.gen(function* () {
      const copy = `${rig.file!}.${yield* Random.nextIntBetween(0, 1_000_000_000)}`
      const database = new DatabaseSync(rig.file!, { timeout: 5000 })
      database.prepare("VACUUM INTO ?").run(copy)
      database.close()
      const copied = new DatabaseSync(copy, { readOnly: true })
      const row = copied.prepare("SELECT max(id) AS id FROM events WHERE chain_id = ?").get(chainId)
      copied.close()
      yield* Effect.sleep(yield* Random.nextIntBetween(1500, 4000))
      const last = yield* lastAcknowledged(rig)
      renameSync(copy, rig.file!)
      cameBack(rig, Number(row!["id"]) < Number(last))
    }),
}
