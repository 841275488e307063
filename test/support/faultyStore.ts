/** A real store that fails on command: before, after or instead of an operation. */
import { Effect, Random, Semaphore } from "effect"
import * as Monotonic from "../../src/Monotonic.ts"
import type { Push } from "../../src/store/Journal.ts"
import { StoreError } from "../../src/store/StoreError.ts"
import type { Copied, Copy } from "./copies.ts"
import { make as watchEpochs } from "./epochWatch.ts"
import type { EpochWatch, Process } from "./epochWatch.ts"
import type { Client } from "./ingestor.ts"

/** A call to a store. */
export interface Call {
  readonly operation: "answer" | "load" | "push" | "pop" | "finalize" | "trim"
  readonly chain: number
  /** The move of a push. */
  readonly push?: Push
}

/** A store whose calls go through `wrap`. */
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
  trim: (chain, filter) => wrap({ operation: "trim", chain }, store.trim(chain, filter)),
})

/** A store that fails with the error of `fault` instead of an operation, while there is one. */
export const failing = (
  store: Client,
  fault: (call: Call) => Effect.Effect<never, StoreError> | undefined,
): Client => around(store, (call, act) => Effect.suspend(() => fault(call) ?? act))

export const failure = (
  operation: string,
  reason: StoreError["reason"] = "unreachable",
  detail = "injected failure",
): StoreError => new StoreError({ operation, reason, detail })

export interface StoreFaults {
  /** This many operations fail without being applied. */
  failures: number
  /** This many operations are applied, but their replies are lost. */
  lostReplies: number
  /** Until then (clock milliseconds) the store does not reply. */
  frozenUntil: number
  /** A push takes up to this many milliseconds. */
  slowness: number
}

export interface FaultyStore {
  /** A client of one ingestor. The client of a dead process fails permanently. */
  readonly client: (process: Process, store: Client) => Client
  readonly faults: StoreFaults
  /** Compares the epochs with the expected ones. */
  readonly epochs: EpochWatch
  /** Deletes everything. */
  readonly empty: Effect.Effect<void>
  /** Restores the state before the last operations, as a failover to an older replica does. */
  readonly regress: (operations: number) => Effect.Effect<void>
}

const hasAdded = (result: unknown) =>
  (result as { readonly added?: unknown } | undefined)?.added !== undefined

/** The most copies to keep: more than several actions restore. */
const mostCopies = 60

const isAny = (result: unknown, ...tags: ReadonlyArray<string>) =>
  tags.includes((result as { readonly _tag?: string } | undefined)?._tag ?? "")

/** A store that keeps a copy before each move, so that an older state can be restored. */
export const make = (copied: Copied): FaultyStore => {
  const faults: StoreFaults = { failures: 0, lostReplies: 0, frozenUntil: 0, slowness: 0 }
  const epochs = watchEpochs(copied)
  /** The state before each of the last operations. */
  const copies: Array<Copy> = []
  const discard = (from: number, to?: number) =>
    Effect.forEach(copies.splice(from, to ?? copies.length), ({ discard }) => discard, { discard: true })
  /** Serializes operations, so that the effect of each one can be inspected. */
  const turn = Semaphore.makeUnsafe(1)
  const alone = <A, E>(effect: Effect.Effect<A, E>) => Effect.uninterruptible(turn.withPermits(1)(effect))

  const guard = <A>(operation: string, process: Process, act: Effect.Effect<A, StoreError>) =>
    Effect.gen(function* () {
      // The fault: a frozen store answers when the freeze ends, which a later fault may postpone.
      while (faults.frozenUntil > (yield* Monotonic.millis)) yield* Effect.sleep("100 millis") // Virtual time.
      if (operation === "push" && faults.slowness > 0)
        yield* Effect.sleep(yield* Random.nextIntBetween(1, faults.slowness)) // The fault: a slow push. Virtual time.
      if (process.dead) return yield* failure(operation)
      if (faults.failures > 0) {
        faults.failures--
        return yield* failure(operation)
      }
      const { result, last } = yield* alone(
        Effect.gen(function* () {
          const isMove = ["push", "pop", "finalize"].includes(operation)
          if (isMove) copies.push(yield* copied.copy)
          const result = yield* Effect.ensuring(act, epochs.look)
          if (isMove && !isAny(result, "Pushed", "Popped", "Finalized")) yield* discard(-1)
          yield* discard(0, Math.max(copies.length - mostCopies, 0))
          // An older copy would have an older filter, and ingestors with the newer one would stop writing.
          if (operation === "take over") yield* discard(0)
          return { result, last: yield* copied.last }
        }),
      )
      if (faults.lostReplies > 0) {
        faults.lostReplies--
        return yield* failure(operation, "timeout")
      }
      if (operation === "check the epoch") yield* epochs.asked(process, last)
      else if (hasAdded(result)) epochs.acknowledged(process, last)
      return result
    })

  return {
    faults,
    epochs,
    client: (process, store) => {
      /** The pushes of one client arrive in order. */
      const turn = Semaphore.makeUnsafe(1)
      const guarded = around(store, ({ operation }, act) => {
        const guarded = guard(operation, process, act)
        return operation === "push" ? turn.withPermits(1)(guarded) : guarded
      })
      return {
        ...guarded,
        checkEpoch: (chain, known) => guard("check the epoch", process, store.checkEpoch(chain, known)),
        changeFilter: (...args) => guard("take over", process, store.changeFilter(...args)),
      }
    },
    empty: alone(
      Effect.gen(function* () {
        yield* discard(0)
        yield* copied.wipe
        yield* epochs.replaced
      }),
    ),
    regress: (operations) =>
      alone(
        Effect.gen(function* () {
          const at = Math.max(copies.length - operations, 0)
          if (copies[at] === undefined) return
          yield* copies[at].bringBack
          yield* discard(at)
          yield* epochs.replaced
        }),
      ),
  }
}
