/** Suspends a chain that must not write, until the journal or the endpoints allow it again. */
import { Effect } from "effect"
import { variablePrefix } from "../config/Chains.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { ErrorType } from "../endpoint/EndpointError.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import { isShown } from "./CrossCheck.ts"
import type { FinalityViolation } from "./CrossCheck.ts"
import type { Journal } from "../store/Journal.ts"
import type { JournalStore } from "../store/JournalStore.ts"
import type { Publisher } from "./ChainEvents.ts"
import type { FilterReplaced, JournalWriter } from "./JournalWriter.ts"
import type { StoreError } from "../store/StoreError.ts"

/** How often a suspended chain reads its journal, and how often a halted one asks the endpoints for its final block. */
const recheckInterval = "5 seconds"
const confirmInterval = "30 seconds"

export interface Suspension {
  /** Halts until the journal has been changed, or an endpoint serves the finalized block. */
  readonly haltUntilResolved: (violation: FinalityViolation) => Effect.Effect<void>
  /** Halts until the journal can be read: a later release wrote it, or it is corrupt. */
  readonly haltUntilReadable: (error: StoreError) => Effect.Effect<void>
  /** Stops writing until the filter of the journal changes again. */
  readonly yieldJournal: (superseded: FilterReplaced) => Effect.Effect<void>
}

export interface SuspensionOptions {
  readonly chain: Pick<ChainConfig, "id" | "name" | "finality">
  readonly store: Pick<JournalStore["Service"], "load">
  readonly publish: Publisher["publish"]
  readonly writer: Pick<JournalWriter, "forgetStart">
  /** All connected endpoints. */
  readonly connected: Effect.Effect<ReadonlyArray<RpcClient>>
}

export const make = ({ chain, store, publish, writer, connected }: SuspensionOptions): Suspension => {
  /** Waits until the selected part of the journal differs from what it is now. */
  const untilChanged = (what: (journal: Journal | undefined) => unknown) =>
    Effect.gen(function* () {
      const before = JSON.stringify(what(yield* store.load(chain.id)))
      const now = store.load(chain.id).pipe(Effect.map((journal) => JSON.stringify(what(journal))))
      yield* now.pipe(
        Effect.delay(recheckInterval),
        Effect.orElseSucceed(() => before),
        Effect.repeat({ while: (seen) => seen === before }),
      )
    }).pipe(Effect.ignore)

  /** Waits until an endpoint serves the finalized block. */
  const untilConfirmed = ({ number, stored }: FinalityViolation) =>
    connected.pipe(
      Effect.flatMap((connected) => isShown(connected, { number, hash: stored })),
      Effect.delay(confirmInterval),
      Effect.repeat({ until: (shown) => shown }),
    )

  const stop = (type: ErrorType, reason: string) => publish({ _tag: "Halted", type, reason })

  /** Development nodes report their latest block as final, and revert it on request. */
  const hint =
    chain.finality === "tag"
      ? ` (if the node reports its latest block as final, as development nodes do, set ${variablePrefix(chain.name)}_FINALITY=depth)`
      : ""

  const haltUntilResolved = (violation: FinalityViolation) =>
    Effect.gen(function* () {
      yield* stop("unverified", violation.message + hint)
      // A journal that an operator empties now begins at the configured start block.
      writer.forgetStart()
      yield* Effect.raceFirst(
        untilChanged((journal) => [journal?.start, journal?.final]),
        untilConfirmed(violation),
      )
      yield* publish({ _tag: "HaltOver", why: "journal changed, or the finalized block was confirmed" })
    })

  const haltUntilReadable = (error: StoreError) =>
    Effect.gen(function* () {
      yield* stop("store", error.message)
      yield* store.load(chain.id).pipe(
        Effect.delay(recheckInterval),
        Effect.as(false),
        Effect.orElseSucceed(() => true),
        Effect.repeat({ while: (isRefused) => isRefused }),
      )
      yield* publish({ _tag: "HaltOver", why: "the journal is readable again" })
    })

  const yieldJournal = (superseded: FilterReplaced) =>
    Effect.gen(function* () {
      const { filter, message } = superseded
      yield* publish({ _tag: "Superseded", filter, message })
      yield* untilChanged((journal) => journal?.filter)
    })

  return { haltUntilResolved, haltUntilReadable, yieldJournal }
}
