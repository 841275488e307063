/** A chain that must not write waits until that may be otherwise. */
import { Effect } from "effect"
import { variablePrefix } from "../config/Chains.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { ErrorType } from "../endpoint/EndpointError.ts"
import type { Asker } from "../endpoint/Headers.ts"
import { isShown } from "./CrossCheck.ts"
import type { Contradiction } from "./CrossCheck.ts"
import { say } from "../observability/LogEvents.ts"
import type { Journal } from "../store/Journal.ts"
import type { Store, StoreError } from "../store/Store.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import type { Superseded, Writer } from "./JournalWriter.ts"

/** How often the store is looked at by a chain that must not write, and the endpoints by one that is halted. */
const recheck = "5 seconds"
const askAgain = "30 seconds"

export interface Standstill {
  /** Until the journal has been changed, or somebody shows the block that was final. */
  readonly halt: (contradiction: Contradiction) => Effect.Effect<void>
  /** Until the journal can be used: a later release wrote it. */
  readonly refused: (error: StoreError) => Effect.Effect<void>
  /** Until the journal is continued with another filter once more. */
  readonly stepAside: (superseded: Superseded) => Effect.Effect<void>
}

export interface StandstillOptions {
  readonly chain: Pick<ChainConfig, "id" | "name" | "finality">
  readonly store: Pick<Store["Service"], "load">
  readonly status: ChainStatus
  readonly writer: Pick<Writer, "forgetStart">
  /** All that can be asked now. */
  readonly connected: Effect.Effect<ReadonlyArray<Asker>>
}

export const make = ({ chain, store, status, writer, connected }: StandstillOptions): Standstill => {
  /** Waits until the journal is another one than the one that made us stop. */
  const untilChanged = (what: (journal: Journal | undefined) => unknown) =>
    Effect.gen(function* () {
      const before = JSON.stringify(what(yield* store.load(chain.id)))
      const now = store.load(chain.id).pipe(Effect.map((journal) => JSON.stringify(what(journal))))
      yield* now.pipe(
        Effect.delay(recheck),
        Effect.orElseSucceed(() => before),
        Effect.repeat({ while: (seen) => seen === before }),
      )
    }).pipe(Effect.ignore)

  /** Waits until somebody shows the block that was final. */
  const untilShown = ({ number, stored }: Contradiction) =>
    connected.pipe(
      Effect.flatMap((everybody) => isShown(everybody, { number, hash: stored })),
      Effect.delay(askAgain),
      Effect.repeat({ until: (shown) => shown }),
    )

  const stop = Effect.fnUntraced(function* (type: ErrorType, reason: string) {
    status.enter("halted")
    status.failed(type, reason)
    yield* say("halted", `halted: ${reason}`, { error_type: type, reason })
  })

  /** Development nodes call their latest block final, and undo it when they are asked to. */
  const hint =
    chain.finality === "tag"
      ? ` (if the node calls its latest block final, as development nodes do, set ${variablePrefix(chain.name)}_FINALITY=depth)`
      : ""

  const halt = (contradiction: Contradiction) =>
    Effect.gen(function* () {
      yield* stop("unverified", contradiction.message + hint)
      // Whoever empties the journal now wants it to begin as it is configured.
      writer.forgetStart()
      yield* Effect.raceFirst(
        untilChanged((journal) => [journal?.start, journal?.final]),
        untilShown(contradiction),
      )
      yield* say(
        "halt_over",
        "the journal has been changed, or an endpoint shows the block that was final: resuming",
        {},
      )
    })

  const refused = (error: StoreError) =>
    Effect.gen(function* () {
      yield* stop("store", error.message)
      yield* store.load(chain.id).pipe(
        Effect.delay(recheck),
        Effect.as(false),
        Effect.orElseSucceed(() => true),
        Effect.repeat({ while: (isRefused) => isRefused }),
      )
      yield* say("halt_over", "the journal can be used again: resuming", {})
    })

  const stepAside = (superseded: Superseded) =>
    Effect.gen(function* () {
      status.enter("superseded")
      yield* say("superseded", `${superseded.message}: not writing`, { filter: superseded.filter })
      yield* untilChanged((journal) => journal?.filter)
    })

  return { halt, refused, stepAside }
}
