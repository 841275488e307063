/**
 * The stored data of one chain is deleted or replaced by another type, and restored. Until then that chain must write
 * nothing, and the other chain of the same service must continue.
 */
import { Effect } from "effect"
import type { Duration } from "effect"
import { DatabaseSync } from "node:sqlite"
import { chainId } from "../test/support/devnet.ts"
import type { Fault } from "./Campaign.ts"
import { errorsOf, untilCounted, untilHalted } from "./errors.ts"
import { neighbourGoesOn } from "./Rig.ts"
import type { Rig } from "./Rig.ts"

const stream = `events:${chainId}`
const parts = { head: `{${stream}}:head`, window: `{${stream}}:window`, stream } as const
type Part = keyof typeof parts

const aside = `{${stream}}:aside`

const clientOf = (rig: Rig) => rig.redis!.server.client

/** Waits for the expected reaction of the service. The other chain must continue before and after it. */
const whileMissing = (rig: Rig, expected: Effect.Effect<unknown, unknown>, within: Duration.Input) =>
  Effect.gen(function* () {
    yield* neighbourGoesOn(rig)
    yield* Effect.timeoutOrElse(expected, {
      duration: within,
      orElse: () => Effect.sync(() => rig.problems.push("the chain did not react to the missing data")),
    })
    for (let i = 0; i < (rig.brief ? 1 : 5); i++) yield* neighbourGoesOn(rig)
  })

const halted = (rig: Rig) => untilHalted(rig.ingestors[0]!.process(), "devnet")

/** Renames the key meanwhile: the service cannot see it. */
const hideKey = (rig: Rig, part: Part) =>
  Effect.gen(function* () {
    const client = clientOf(rig)
    yield* Effect.promise(() => client.rename(parts[part], aside))
    yield* whileMissing(rig, halted(rig), "10 seconds")
    if (yield* Effect.promise(() => client.exists(parts[part])))
      rig.problems.push(`the service began a new ${part}`)
    yield* Effect.promise(() => client.rename(aside, parts[part]))
  })

const tables = { head: "heads", window: "window", stream: "events" } as const

/** Moves the rows of the chain elsewhere meanwhile. */
const hideRows = (rig: Rig, part: Part) =>
  Effect.gen(function* () {
    const database = yield* Effect.acquireRelease(
      Effect.sync(() => new DatabaseSync(rig.file!, { timeout: 5000 })),
      (database) => Effect.sync(() => database.close()),
    )
    const rows = `${tables[part]} WHERE chain_id = ${chainId}`
    const run = (sql: string) => Effect.sync(() => database.exec(`BEGIN IMMEDIATE; ${sql}; COMMIT`))
    // In memory: a second table in the file would change its schema.
    database.exec("ATTACH ':memory:' AS aside")
    yield* run(`CREATE TABLE aside.kept AS SELECT * FROM ${rows}; DELETE FROM ${rows}`)
    yield* whileMissing(rig, halted(rig), "10 seconds")
    if (database.prepare(`SELECT 1 FROM ${rows}`).get()) rig.problems.push(`the service began a new ${part}`)
    yield* run(`DELETE FROM ${rows}; INSERT INTO ${tables[part]} SELECT * FROM aside.kept`)
  }).pipe(Effect.scoped)

const deletedAndRestored = (name: string, part: Part): Fault => ({
  name,
  stores: ["sqlite", "redis"],
  times: 2,
  neighbour: true,
  inflict: (rig) => (rig.kind === "redis" ? hideKey(rig, part) : hideRows(rig, part)),
})

export const keysGone: ReadonlyArray<Fault> = [
  deletedAndRestored("the head of one chain deleted and restored", "head"),
  deletedAndRestored("the window of one chain deleted and restored [G-159]", "window"),
  deletedAndRestored("the stream of one chain deleted and restored", "stream"),
]

/** The journal cannot be restored: the operator resets it, as the error message says. */
export const resetInstead: Fault = {
  name: "the head of one chain deleted, and the chain reset [G-160]",
  stores: ["sqlite", "redis"],
  times: 2,
  neighbour: true,
  inflict: (rig) =>
    Effect.gen(function* () {
      yield* rig.kind === "redis"
        ? Effect.promise(() => clientOf(rig).del(parts.head))
        : Effect.sync(() => {
            const database = new DatabaseSync(rig.file!, { timeout: 5000 })
            database.exec(`DELETE FROM heads WHERE chain_id = ${chainId}`)
            database.close()
          })
      yield* whileMissing(rig, halted(rig), "10 seconds")
      const { code, errors } = yield* rig.ingestors[0]!.command(
        "reset",
        "--chain",
        "devnet",
        "--delete",
        "--yes",
      )
      rig.epoch = "reset"
      if (code !== 0) rig.problems.push(`reset exited with ${code}: ${errors}`)
    }),
}

/** Waits until moves are refused and an error is counted. */
const refused = (rig: Rig, harm: Effect.Effect<unknown, unknown>) =>
  untilCounted(harm, errorsOf(rig.ingestors[0]!.process(), "devnet", "store"))

export const anotherType: Fault = {
  name: "the stream of one chain replaced by a key of another type and restored [G-161]",
  stores: ["redis"],
  times: 2,
  neighbour: true,
  inflict: (rig) =>
    Effect.gen(function* () {
      const client = clientOf(rig)
      const replace = Effect.promise(() => client.multi().rename(stream, aside).set(stream, "mine").exec())
      yield* whileMissing(rig, refused(rig, replace), "10 seconds")
      if ((yield* Effect.promise(() => client.get(stream))) !== "mine")
        rig.problems.push("the service overwrote the key")
      yield* Effect.promise(() => client.rename(aside, stream))
    }),
}
