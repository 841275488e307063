/** What is final by now, and how far the floor of the journal may be raised: after the second look, where one is taken. */
import { Clock, Duration, Effect } from "effect"
import type { Scope } from "effect"
import type { ChainConfig } from "../Config.ts"
import * as Defects from "../Defects.ts"
import type { Header } from "../Domain.ts"
import { isRefusal } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Learned } from "../endpoint/Learned.ts"
import { firstAboveFloor } from "../store/Journal.ts"
import type { Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/Store.ts"
import type { Audit } from "./Audit.ts"
import type { Place } from "./Canonical.ts"
import * as Headers from "./Headers.ts"
import type { Asker } from "./Headers.ts"

/** How often the final block is asked for. */
const interval = Duration.seconds(15)

/** The floor is raised at most so often (milliseconds): what becomes final meanwhile costs no requests of its own. */
const raiseInterval = 60_000

/**
 * Records in the window, at most. Where finality stands still for longer (a week of Ethereum, four hours of a chain with
 * four blocks a second), the oldest count as final.
 */
export const mostRecorded = 50_000

export interface FinalityOptions {
  readonly chain: Pick<ChainConfig, "finality" | "finalityDepth">
  readonly connection: Asker
  readonly learned: Learned
  readonly audit: Audit | undefined
  /** The journal as it will stand once all moves are done. */
  readonly journal: () => Journal
  /** The journal as the store has it up to a block; `undefined` if it does not reach there. */
  readonly stored: (to: number) => Effect.Effect<Journal | undefined, StoreError>
  /** Told when more is final, or the second look is over. */
  readonly onChange: Effect.Effect<void>
  readonly onFinal: (header: Header) => void
}

export interface Finality {
  /** The final block of now, as far as it is known. */
  readonly block: () => Header | undefined
  /** The lowest block that the second look found to be stored wrong; told once. */
  readonly takeWrong: () => number | undefined
  /** The block that may become the floor now, if any. */
  readonly raise: Effect.Effect<Place | undefined, EndpointError>
}

/** Asks for the final block, now and from time to time, for as long as the scope lives. */
export const make = Effect.fnUntraced(function* (
  options: FinalityOptions,
): Effect.fn.Return<Finality, EndpointError, Scope.Scope> {
  const { audit, chain, connection, journal, learned } = options
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const headerAt = (block: number | Headers.Tag) => Headers.header(connection, block)
  let final: Header | undefined
  /** What the second look has found up to a place: the block from which to write again, if any. */
  let looked: { readonly place: Place; readonly wrong: number | undefined } | undefined
  let looking = false
  let raisedAt = -Infinity

  /** Without the tag that a node does not have, the block at `FINALITY_DEPTH`. */
  const ask = Effect.gen(function* () {
    if (learned.finalizedTag && chain.finality === "tag") {
      const tagged = yield* headerAt("finalized").pipe(
        Effect.catchIf(isRefusal, () => {
          learned.finalizedTag = false
          return Effect.succeed(undefined)
        }),
      )
      if (learned.finalizedTag) return tagged
    }
    const latest = yield* headerAt("latest")
    const height = (latest?.number ?? 0) - chain.finalityDepth
    return height >= 0 ? yield* headerAt(height) : undefined
  })

  const learn = (header: Header | undefined) => {
    if (header === undefined || header.number === final?.number) return false
    final = header
    options.onFinal(header)
    return true
  }

  /** The highest block of ours that is final by now, if it is above the floor. */
  const highestFinal = (): Place | undefined => {
    const { head, window } = journal()
    if (head.part !== 0 || head.hash === "") return undefined
    const oldest = window.at(-mostRecorded)
    const highest = oldest !== undefined && oldest.number > (final?.number ?? -1) ? oldest : final
    if (highest === undefined) return undefined
    const place: Place = highest.number < head.number ? highest : { number: head.number, hash: head.hash }
    return place.number >= firstAboveFloor(journal()) ? place : undefined
  }

  /** Looks again at what is to become final, beside everything else. */
  const look = (audit: Audit, place: Place) => {
    if (looking) return Effect.void
    looking = true
    return Effect.gen(function* () {
      const stored = yield* options.stored(place.number)
      if (stored === undefined) return
      looked = { place, wrong: yield* audit.look(stored, place.number) }
      yield* options.onChange
    }).pipe(
      // With the store away nothing becomes final.
      Effect.ignore,
      Effect.ensuring(Effect.sync(() => (looking = false))),
      Defects.toOwner,
      Effect.forkIn(scope),
    )
  }

  /** The lowest record that is not below the new floor must be canonical: then so is everything of ours under it. */
  const raise = Effect.gen(function* () {
    const highest = highestFinal()
    if (highest === undefined || looked?.wrong !== undefined) return undefined
    const now = clock.currentTimeMillisUnsafe()
    if (now - raisedAt < raiseInterval) return undefined
    if (audit && looked === undefined) {
      yield* look(audit, highest)
      return undefined
    }
    raisedAt = now
    const place = looked?.place ?? highest
    looked = undefined
    // Meanwhile blocks may have been undone.
    if (place.number > highest.number) return undefined
    const above = journal().window.find((record) => record.number >= place.number)
    if (above === undefined || (above.number === place.number && above.hash !== place.hash)) return undefined
    const seen = yield* headerAt(above.number)
    if (seen?.hash !== above.hash) return undefined
    audit?.memory.forget(place.number)
    return place
  })

  learn(yield* ask)
  yield* Effect.sleep(interval).pipe(
    Effect.andThen(ask),
    // Also where the floor was raised too recently before: a chain that stands still announces no head.
    Effect.tap((header) => (learn(header) || highestFinal() !== undefined ? options.onChange : Effect.void)),
    Effect.ignore,
    Effect.forever,
    Defects.toOwner,
    Effect.forkScoped,
  )
  return {
    block: () => final,
    takeWrong: () => {
      const wrong = looked?.wrong
      if (wrong !== undefined) looked = undefined
      return wrong
    },
    raise,
  }
})
