/** Throughput on a machine whose cores are busy with other work: three busy processes per core. */
import { Effect } from "effect"
import { availableParallelism } from "node:os"
import { startNode } from "../child.ts"
import { load } from "../run.ts"
import { bare } from "../subjects/bare.ts"
import { ours } from "../subjects/ours.ts"
import { perEvent } from "../subjects/perEvent.ts"
import { script } from "../subjects/script.ts"
import { sustained } from "./sustained.ts"
import type { Sustained } from "./sustained.ts"

export interface Loaded {
  readonly busy: number
  /** Blocks of 1 000 logs on one chain. */
  readonly large: ReadonlyArray<Sustained>
  /** Blocks of 200 logs on four chains. */
  readonly small: ReadonlyArray<Sustained>
}

/** Spins until the benchmark is gone, however that has ended. */
const spin = "const parent = process.ppid; while (process.ppid === parent) for (let i = 0; i < 1e7; i++);"

const busy = 3 * availableParallelism()

/** The blocks that the subjects get: those that write one event at a time get fewer, as their speed does not depend on the number. */
interface Blocks {
  readonly many: number
  readonly few: number
}

const rows = (logs: number, chains: number, { many, few }: Blocks, rounds: number) =>
  sustained(
    [
      { subject: bare, load: load(logs, many, chains) },
      { subject: ours, load: load(logs, many, chains) },
      { subject: perEvent, load: load(logs, few, chains) },
      { subject: script, load: load(logs, few, chains) },
    ],
    rounds,
  )

export const loaded = (rounds: number): Effect.Effect<Loaded> =>
  Effect.gen(function* () {
    yield* Effect.replicateEffect(startNode(["-e", spin]), busy)
    return {
      busy,
      large: yield* rows(1000, 1, { many: 60, few: 4 }, rounds),
      small: yield* rows(200, 4, { many: 50, few: 5 }, rounds),
    }
  }).pipe(Effect.scoped)
