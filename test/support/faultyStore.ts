/** A real store that fails on command: before, after or instead of what it is asked for. */
import { Effect, Random, Semaphore } from "effect"
import * as Monotonic from "../../src/Monotonic.ts"
import type { Slice } from "../../src/store/Journal.ts"
import { StoreError } from "../../src/store/Store.ts"
import type { Client } from "./ingestor.ts"

type Mutation = () => Effect.Effect<unknown, StoreError>

export interface StoreFaults {
  /** So many operations fail without being done. */
  failures: number
  /** So many operations are done, but the answer is lost. */
  lostReplies: number
  /** Until then (clock milliseconds) nothing is answered. */
  frozenUntil: number
  /** A push takes up to so many milliseconds. */
  slowness: number
}

export interface FaultyStore {
  /** A client of one ingestor. A dead one fails for ever, as the process that held it is gone. */
  readonly client: (isDead: () => boolean) => Client
  readonly faults: StoreFaults
  /** Deletes everything. */
  readonly empty: Effect.Effect<void, StoreError>
  /** Takes back the last operations, as a failover to an older replica does. */
  readonly regress: (operations: number) => Effect.Effect<void, StoreError>
}

const failure = (operation: string, reason: "unreachable" | "timeout") =>
  new StoreError({ operation, reason, detail: "as told" })

/** What a store does to one chain can be taken back because everything done to it is remembered. */
export const make = (store: Client, chain: number): FaultyStore => {
  const faults: StoreFaults = { failures: 0, lostReplies: 0, frozenUntil: 0, slowness: 0 }
  let done: Array<Mutation> = []

  const forget = store.reset(chain, { from: undefined, filter: "none", delete: true })

  const guard = <A>(
    operation: string,
    isDead: () => boolean,
    act: () => Effect.Effect<A, StoreError>,
    changes: (result: A) => boolean,
  ): Effect.Effect<A, StoreError> =>
    Effect.gen(function* () {
      while (faults.frozenUntil > (yield* Monotonic.millis)) yield* Effect.sleep("100 millis")
      if (operation === "push" && faults.slowness > 0)
        yield* Effect.sleep(yield* Random.nextIntBetween(1, faults.slowness))
      if (isDead()) return yield* failure(operation, "unreachable")
      if (faults.failures > 0) {
        faults.failures--
        return yield* failure(operation, "unreachable")
      }
      const result = yield* act()
      if (changes(result)) done.push(act)
      if (faults.lostReplies > 0) {
        faults.lostReplies--
        return yield* failure(operation, "timeout")
      }
      return result
    })

  const no = () => false
  return {
    faults,
    client: (isDead) => {
      /** What one client sends arrives in its order. */
      const turn = Semaphore.makeUnsafe(1)
      return {
        ...store,
        ping: (id) => guard("answer", isDead, () => store.ping(id), no),
        load: (id) => guard("load", isDead, () => store.load(id), no),
        push: (id, filter, { blocks: [first, ...rest], ...move }) => {
          // What was pushed is pushed again after the service has let go of it.
          const copy = (slice: Slice) => ({ ...slice, logs: [...slice.logs] })
          const blocks = [copy(first), ...rest.map(copy)] as const
          return turn.withPermits(1)(
            guard(
              "push",
              isDead,
              () => store.push(id, filter, { ...move, blocks }),
              ({ _tag }) => _tag === "Pushed",
            ),
          )
        },
        pop: (id, filter, move) =>
          guard(
            "pop",
            isDead,
            () => store.pop(id, filter, move),
            ({ _tag }) => _tag === "Popped",
          ),
        finalize: (id, filter, move) =>
          guard(
            "finalize",
            isDead,
            () => store.finalize(id, filter, move),
            ({ _tag }) => _tag === "Finalized",
          ),
        trim: (id) => guard("trim", isDead, () => store.trim(id), no),
      }
    },
    empty: Effect.andThen(
      Effect.sync(() => void (done = [])),
      forget,
    ),
    regress: (operations) =>
      Effect.gen(function* () {
        done = done.slice(0, Math.max(done.length - operations, 0))
        yield* forget
        for (const mutation of done) yield* mutation()
      }),
  }
}
