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

/** Subjects that write one event at a time get fewer events: their speed does not depend on the number. */
const few = 0.05

const rows = (logs: number, blocks: number, chains: number, rounds: number) => {
  const all = load(logs, blocks, chains)
  const some = load(logs, Math.ceil(blocks * few), chains)
  return sustained(
    [
      { subject: bare, load: all },
      { subject: ours, load: all },
      { subject: perEvent, load: some },
      { subject: script, load: some },
    ],
    rounds,
  )
}

export const loaded = (blocks: number, rounds: number): Effect.Effect<Loaded> =>
  Effect.gen(function* () {
    yield* Effect.replicateEffect(startNode(["-e", spin]), busy)
    return {
      busy,
      large: yield* rows(1000, blocks, 1, rounds),
      small: yield* rows(200, blocks, 4, rounds),
    }
  }).pipe(Effect.scoped)
