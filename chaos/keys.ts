/**
 * The stored data of one chain is deleted or replaced by another type, and restored. Until then that chain must write
 * nothing, and the other chain of the same service must continue.
 */
import { Effect } from "effect"
import type { Duration } from "effect"
import { DatabaseSync } from "node:sqlite"
import { chainId } from "../test/support/devnet.ts"
import type { Fault } from "./Fault.ts"
import { errorsOf, untilCounted, untilHalted } from "./errors.ts"
import { neighbourGoesOn } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"

const stream = `events:${chainId}`
const parts = { head: `{${stream}}:head`, window: `{${stream}}:window`, stream } as const
type Part = keyof typeof parts

const aside = `{${stream}}:aside`

const clientOf = (cluster: Cluster) => cluster.redis!.server.client

/** Waits for the expected reaction of the service. The other chain must continue before and after it. */
const whileMissing = (cluster: Cluster, expected: Effect.Effect<unknown, unknown>, within: Duration.Input) =>
  Effect.gen(function* () {
    yield* neighbourGoesOn(cluster)
    yield* Effect.timeoutOrElse(expected, {
      duration: within,
      orElse: () => Effect.sync(() => cluster.problems.push("the chain did not react to the missing data")),
    })
    for (let i = 0; i < (cluster.brief ? 1 : 5); i++) yield* neighbourGoesOn(cluster)
  })

const halted = (cluster: Cluster) => untilHalted(cluster.ingestors[0]!.process(), "devnet")

/** Renames the key meanwhile: the service cannot see it. */
const hideKey = (cluster: Cluster, part: Part) =>
  Effect.gen(function* () {
    const client = clientOf(cluster)
    yield* Effect.promise(() => client.rename(parts[part], aside))
    yield* whileMissing(cluster, halted(cluster), "10 seconds")
    if (yield* Effect.promise(() => client.exists(parts[part])))
      cluster.problems.push(`the service began a new ${part}`)
    yield* Effect.promise(() => client.rename(aside, parts[part]))
  })

const tables = { head: "heads", window: "window", stream: "events" } as const

/** Moves the rows of the chain elsewhere meanwhile. */
const hideRows = (cluster: Cluster, part: Part) =>
  Effect.gen(function* () {
    const database = yield* Effect.acquireRelease(
      Effect.sync(() => new DatabaseSync(cluster.file!, { timeout: 5000 })),
      (database) => Effect.sync(() => database.close()),
    )
    const rows = `${tables[part]} WHERE chain_id = ${chainId}`
    const run = (sql: string) => Effect.sync(() => database.exec(`BEGIN IMMEDIATE; ${sql}; COMMIT`))
    // In memory: a second table in the file would change its schema.
    database.exec("ATTACH ':memory:' AS aside")
    yield* run(`CREATE TABLE aside.kept AS SELECT * FROM ${rows}; DELETE FROM ${rows}`)
    yield* whileMissing(cluster, halted(cluster), "10 seconds")
    if (database.prepare(`SELECT 1 FROM ${rows}`).get())
      cluster.problems.push(`the service began a new ${part}`)
    yield* run(`DELETE FROM ${rows}; INSERT INTO ${tables[part]} SELECT * FROM aside.kept`)
  }).pipe(Effect.scoped)

const deletedAndRestored = (name: string, part: Part): Fault => ({
  name,
  stores: ["sqlite", "redis"],
  times: 2,
  neighbour: true,
  inflict: (cluster) => (cluster.kind === "redis" ? hideKey(cluster, part) : hideRows(cluster, part)),
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
  inflict: (cluster) =>
    Effect.gen(function* () {
      yield* cluster.kind === "redis"
        ? Effect.promise(() => clientOf(cluster).del(parts.head))
        : Effect.sync(() => {
            const database = new DatabaseSync(cluster.file!, { timeout: 5000 })
            database.exec(`DELETE FROM heads WHERE chain_id = ${chainId}`)
            database.close()
          })
      yield* whileMissing(cluster, halted(cluster), "10 seconds")
      const { code, errors } = yield* cluster.ingestors[0]!.command(
        "reset",
        "--chain",
        "devnet",
        "--delete",
        "--yes",
      )
      cluster.epoch = "reset"
      if (code !== 0) cluster.problems.push(`reset exited with ${code}: ${errors}`)
    }),
}

/** Waits until moves are refused and an error is counted. */
const refused = (cluster: Cluster, harm: Effect.Effect<unknown, unknown>) =>
  untilCounted(harm, errorsOf(cluster.ingestors[0]!.process(), "devnet", "store"))

export const anotherType: Fault = {
  name: "the stream of one chain replaced by a key of another type and restored [G-161]",
  stores: ["redis"],
  times: 2,
  neighbour: true,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const client = clientOf(cluster)
      const replace = Effect.promise(() => client.multi().rename(stream, aside).set(stream, "mine").exec())
      yield* whileMissing(cluster, refused(cluster, replace), "10 seconds")
      if ((yield* Effect.promise(() => client.get(stream))) !== "mine")
        cluster.problems.push("the service overwrote the key")
      yield* Effect.promise(() => client.rename(aside, stream))
    }),
}
