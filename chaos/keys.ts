/**
 * What is stored of one chain is taken away, or another type is in its place, and comes back. That chain writes nothing
 * until then, and the other chain of the same service goes on.
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

/** What is expected of the service, which is waited for; the other chain goes on before it and after it. */
const meanwhile = (rig: Rig, expected: Effect.Effect<unknown, unknown>, within: Duration.Input) =>
  Effect.gen(function* () {
    yield* neighbourGoesOn(rig)
    yield* Effect.timeoutOrElse(expected, {
      duration: within,
      orElse: () => Effect.sync(() => rig.problems.push("the chain went on as if nothing were missing")),
    })
    for (let i = 0; i < (rig.brief ? 1 : 5); i++) yield* neighbourGoesOn(rig)
  })

const halted = (rig: Rig) => untilHalted(rig.ingestors[0]!.process(), "devnet")

/** The key has another name meanwhile, which for the service is no key. */
const keyGone = (rig: Rig, part: Part) =>
  Effect.gen(function* () {
    const client = clientOf(rig)
    yield* Effect.promise(() => client.rename(parts[part], aside))
    yield* meanwhile(rig, halted(rig), "10 seconds")
    if (yield* Effect.promise(() => client.exists(parts[part])))
      rig.problems.push(`the ${part} was begun anew`)
    yield* Effect.promise(() => client.rename(aside, parts[part]))
  })

const tables = { head: "heads", window: "window", stream: "events" } as const

/** The rows of the chain are elsewhere meanwhile. */
const rowsGone = (rig: Rig, part: Part) =>
  Effect.gen(function* () {
    const database = yield* Effect.acquireRelease(
      Effect.sync(() => new DatabaseSync(rig.file!, { timeout: 5000 })),
      (database) => Effect.sync(() => database.close()),
    )
    const rows = `${tables[part]} WHERE chain_id = ${chainId}`
    const run = (sql: string) => Effect.sync(() => database.exec(`BEGIN IMMEDIATE; ${sql}; COMMIT`))
    // In memory: another table in the file would be a change of its schema.
    database.exec("ATTACH ':memory:' AS aside")
    yield* run(`CREATE TABLE aside.kept AS SELECT * FROM ${rows}; DELETE FROM ${rows}`)
    yield* meanwhile(rig, halted(rig), "10 seconds")
    if (database.prepare(`SELECT 1 FROM ${rows}`).get()) rig.problems.push(`the ${part} was begun anew`)
    yield* run(`DELETE FROM ${rows}; INSERT INTO ${tables[part]} SELECT * FROM aside.kept`)
  }).pipe(Effect.scoped)

const gone = (name: string, part: Part): Fault => ({
  name,
  stores: ["sqlite", "redis"],
  times: 2,
  neighbour: true,
  inflict: (rig) => (rig.kind === "redis" ? keyGone(rig, part) : rowsGone(rig, part)),
})

export const keysGone: ReadonlyArray<Fault> = [
  gone("the head of one chain deleted, and put back", "head"),
  gone("the window of one chain deleted, and put back [G-159]", "window"),
  gone("the stream of one chain deleted, and put back", "stream"),
]

/** What is left cannot be put together again: the operator begins anew, as the error says. */
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
      yield* meanwhile(rig, halted(rig), "10 seconds")
      const { code, errors } = yield* rig.ingestors[0]!.command(
        "reset",
        "--chain",
        "devnet",
        "--delete",
        "--yes",
      )
      rig.epoch = "reset"
      if (code !== 0) rig.problems.push(`reset ended with ${code}: ${errors}`)
    }),
}

/** Moves are refused: an error is counted. */
const refused = (rig: Rig, harm: Effect.Effect<unknown, unknown>) =>
  untilCounted(harm, errorsOf(rig.ingestors[0]!.process(), "devnet", "store"))

export const anotherType: Fault = {
  name: "the stream of one chain replaced by a key of another type, and put back [G-161]",
  stores: ["redis"],
  times: 2,
  neighbour: true,
  inflict: (rig) =>
    Effect.gen(function* () {
      const client = clientOf(rig)
      const replace = Effect.promise(() => client.multi().rename(stream, aside).set(stream, "mine").exec())
      yield* meanwhile(rig, refused(rig, replace), "10 seconds")
      if ((yield* Effect.promise(() => client.get(stream))) !== "mine")
        rig.problems.push("it was written over")
      yield* Effect.promise(() => client.rename(aside, stream))
    }),
}
