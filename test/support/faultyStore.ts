/** A real store that fails on command: before, after or instead of what it is asked for. */
import { Effect, Random, Semaphore } from "effect"
import * as Monotonic from "../../src/Monotonic.ts"
import type { Push, BlockChunk } from "../../src/store/Journal.ts"
import { StoreError } from "../../src/store/Store.ts"
import type { Client } from "./ingestor.ts"

/** What a store is asked for. */
export interface Call {
  readonly operation: "answer" | "load" | "push" | "pop" | "finalize" | "trim"
  readonly chain: number
  /** What a push carries. */
  readonly push?: Push
}

/** A store of which each call goes through `wrap`. */
export const around = (
  store: Client,
  wrap: <A>(call: Call, act: Effect.Effect<A, StoreError>) => Effect.Effect<A, StoreError>,
): Client => ({
  ...store,
  ping: (chain) => wrap({ operation: "answer", chain }, store.ping(chain)),
  load: (chain) => wrap({ operation: "load", chain }, store.load(chain)),
  push: (chain, filter, push) => wrap({ operation: "push", chain, push }, store.push(chain, filter, push)),
  pop: (chain, filter, move) => wrap({ operation: "pop", chain }, store.pop(chain, filter, move)),
  finalize: (chain, filter, move) =>
    wrap({ operation: "finalize", chain }, store.finalize(chain, filter, move)),
  trim: (chain) => wrap({ operation: "trim", chain }, store.trim(chain)),
})

/** A store that does not do what it is asked for while `fault` has an answer to it. */
export const failing = (
  store: Client,
  fault: (call: Call) => Effect.Effect<never, StoreError> | undefined,
): Client => around(store, (call, act) => Effect.suspend(() => fault(call) ?? act))

export const failure = (
  operation: string,
  reason: StoreError["reason"] = "unreachable",
  detail = "as told",
): StoreError => new StoreError({ operation, reason, detail })

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

/** What a store does to one chain can be taken back because everything done to it is remembered. */
export const make = (store: Client, chain: number): FaultyStore => {
  const faults: StoreFaults = { failures: 0, lostReplies: 0, frozenUntil: 0, slowness: 0 }
  let done: Array<Effect.Effect<unknown, StoreError>> = []

  const forget = store.reset(chain, { from: undefined, filter: "none", delete: true })

  const isDone = (result: unknown) =>
    ["Pushed", "Popped", "Finalized"].includes((result as { readonly _tag?: string } | undefined)?._tag ?? "")

  const guard = <A>(operation: string, isDead: () => boolean, act: Effect.Effect<A, StoreError>) =>
    Effect.gen(function* () {
      while (faults.frozenUntil > (yield* Monotonic.millis)) yield* Effect.sleep("100 millis")
      if (operation === "push" && faults.slowness > 0)
        yield* Effect.sleep(yield* Random.nextIntBetween(1, faults.slowness))
      if (isDead()) return yield* failure(operation)
      if (faults.failures > 0) {
        faults.failures--
        return yield* failure(operation)
      }
      const result = yield* act
      if (isDone(result)) done.push(act)
      if (faults.lostReplies > 0) {
        faults.lostReplies--
        return yield* failure(operation, "timeout")
      }
      return result
    })

  // What was pushed is pushed again after the service has let go of it.
  const copy = (slice: BlockChunk) => ({ ...slice, logs: [...slice.logs] })
  const copying: Client = {
    ...store,
    push: (id, filter, { blocks: [first, ...rest], ...move }) =>
      store.push(id, filter, { ...move, blocks: [copy(first), ...rest.map(copy)] }),
  }

  return {
    faults,
    client: (isDead) => {
      /** What one client sends arrives in its order. */
      const turn = Semaphore.makeUnsafe(1)
      return around(copying, ({ operation }, act) => {
        const guarded = guard(operation, isDead, act)
        return operation === "push" ? turn.withPermits(1)(guarded) : guarded
      })
    },
    empty: Effect.andThen(
      Effect.sync(() => void (done = [])),
      forget,
    ),
    regress: (operations) =>
      Effect.gen(function* () {
        done = done.slice(0, Math.max(done.length - operations, 0))
        yield* forget
        for (const mutation of done) yield* mutation
      }),
  }
}
