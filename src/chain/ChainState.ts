/** What a chain keeps across connections and defects. */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import { decoderOf } from "../abi/LoadDecoder.ts"
import type { DecodeBlock } from "../abi/LoadDecoder.ts"
import { makeBreaker } from "../Retry.ts"
import type { Breaker } from "../Retry.ts"
import { description } from "../logs/Filter.ts"
import * as Housekeeping from "../store/Housekeeping.ts"
import { PushLimits } from "../store/PushLimits.ts"
import { JournalStore } from "../store/JournalStore.ts"
import * as StoreBreaker from "../store/StoreBreaker.ts"
import type { Disagreed } from "../endpoint/FinalityQuorum.ts"
import type { InTurn } from "./AuditReads.ts"
import { ChainEvents } from "./ChainEvents.ts"
import type { Publisher } from "./ChainEvents.ts"
import { ForkStandoff } from "./ForkStandoff.ts"
import * as JournalWriter from "./JournalWriter.ts"
import { Provenance } from "./Provenance.ts"
import { RecentHeaders } from "./RecentHeaders.ts"

/** Other ingestors of the same chain. */
export interface Rivals {
  /** How many of our moves another one had made. */
  moves: number
}

export interface ChainState {
  readonly rivals: Rivals
  /** Runs the audit's reads, those of all chains one after the other. */
  readonly inTurn: InTurn
  /** Publishes what happens to the chain. */
  readonly events: Publisher
  readonly writer: JournalWriter.JournalWriter
  readonly provenance: Provenance
  readonly standoff: ForkStandoff
  readonly recentHeaders: RecentHeaders
  readonly pushLimits: PushLimits
  readonly housekeeping: Housekeeping.Housekeeping
  readonly disagreed: Disagreed
  /** Decodes the logs of a block, if the chain's events are configured. */
  readonly decode: DecodeBlock | undefined
  readonly storeBreaker: StoreBreaker.StoreBreaker
  /** The breaker of the chain as a whole. */
  readonly breaker: Breaker
}

/** The state of a chain, with its housekeeping and store breaker running as long as the scope. */
export const make = Effect.fnUntraced(function* (
  chain: ChainConfig,
  rivals: Rivals,
  inTurn: InTurn,
): Effect.fn.Return<ChainState, never, ChainEvents | AppConfig | JournalStore | Scope.Scope> {
  const store = yield* JournalStore
  const events = (yield* ChainEvents).of(chain.name)
  const storeBreaker = yield* StoreBreaker.make(store.ping(chain.id), events.publish)
  events.record({ _tag: "ChainStarted", storeBreaker })
  return {
    events,
    rivals,
    inTurn,
    storeBreaker,
    breaker: yield* makeBreaker,
    writer: yield* JournalWriter.make(chain, storeBreaker, events),
    housekeeping: yield* Housekeeping.make(store.trim(chain.id, description(chain.filter)), events.publish),
    pushLimits: new PushLimits(store.limits),
    provenance: new Provenance(),
    standoff: new ForkStandoff(),
    recentHeaders: new RecentHeaders(),
    disagreed: { endpoints: [], at: -Infinity },
    decode: yield* decoderOf(chain.events),
  }
})
