/** A chain that must not write waits until that may be otherwise. */
import { Effect } from "effect"
import { variablePrefix } from "../config/Chains.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { ErrorType } from "../endpoint/EndpointError.ts"
import type { NamedClient } from "../endpoint/Headers.ts"
import { shows } from "./CrossCheck.ts"
import type { FinalityViolation } from "./CrossCheck.ts"
import { logEvent } from "../observability/LogEvents.ts"
import type { Journal } from "../store/Journal.ts"
import type { Store, StoreError } from "../store/Store.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import type { FilterReplaced, JournalWriter } from "./JournalWriter.ts"

/** How often the store is looked at by a chain that must not write, and the endpoints by one that is halted. */
const recheckInterval = "5 seconds"
const confirmInterval = "30 seconds"

export interface Suspension {
  /** Until the journal has been changed, or somebody shows the block that was final. */
  readonly haltUntilResolved: (contradiction: FinalityViolation) => Effect.Effect<void>
  /** Until the journal can be used: a later release wrote it. */
  readonly refused: (error: StoreError) => Effect.Effect<void>
  /** Until the journal is continued with another filter once more. */
  readonly yieldJournal: (superseded: FilterReplaced) => Effect.Effect<void>
}

export interface SuspensionOptions {
  readonly chain: Pick<ChainConfig, "id" | "name" | "finality">
  readonly store: Pick<Store["Service"], "load">
  readonly status: ChainStatus
  readonly writer: Pick<JournalWriter, "forgetStart">
  /** All that can be asked now. */
  readonly connected: Effect.Effect<ReadonlyArray<NamedClient>>
}

export const make = ({ chain, store, status, writer, connected }: SuspensionOptions): Suspension => {
  /** Waits until the journal is another one than the one that made us stop. */
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

  /** Waits until somebody shows the block that was final. */
  const untilConfirmed = ({ number, stored }: FinalityViolation) =>
    connected.pipe(
      Effect.flatMap((connected) => shows(connected, { number, hash: stored })),
      Effect.delay(confirmInterval),
      Effect.repeat({ until: (shown) => shown }),
    )

  const stop = Effect.fnUntraced(function* (type: ErrorType, reason: string) {
    status.enter("halted")
    status.recordFailure(type, reason)
    yield* logEvent("halted", `halted: ${reason}`, { error_type: type, reason })
  })

  /** Development nodes call their latest block final, and undo it when they are asked to. */
  const hint =
    chain.finality === "tag"
      ? ` (if the node calls its latest block final, as development nodes do, set ${variablePrefix(chain.name)}_FINALITY=depth)`
      : ""

  const haltUntilResolved = (contradiction: FinalityViolation) =>
    Effect.gen(function* () {
      yield* stop("unverified", contradiction.message + hint)
      // Whoever empties the journal now wants it to begin as it is configured.
      writer.forgetStart()
      yield* Effect.raceFirst(
        untilChanged((journal) => [journal?.start, journal?.final]),
        untilConfirmed(contradiction),
      )
      yield* logEvent(
        "halt_over",
        "the journal has been changed, or an endpoint shows the block that was final: resuming",
        {},
      )
    })

  const refused = (error: StoreError) =>
    Effect.gen(function* () {
      yield* stop("store", error.message)
      yield* store.load(chain.id).pipe(
        Effect.delay(recheckInterval),
        Effect.as(false),
        Effect.orElseSucceed(() => true),
        Effect.repeat({ while: (isRefused) => isRefused }),
      )
      yield* logEvent("halt_over", "the journal can be used again: resuming", {})
    })

  const yieldJournal = (superseded: FilterReplaced) =>
    Effect.gen(function* () {
      status.enter("superseded")
      yield* logEvent("superseded", `${superseded.message}: not writing`, { filter: superseded.filter })
      yield* untilChanged((journal) => journal?.filter)
    })

  return { haltUntilResolved, refused, yieldJournal }
}
