/** What a chain keeps across connections and defects. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import { Status } from "../observability/Status.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import { makeBreaker } from "../Retry.ts"
import type { Breaker } from "../Retry.ts"
import * as Housekeeping from "../store/Housekeeping.ts"
import { PushLimits } from "../store/PushLimits.ts"
import { JournalStore } from "../store/JournalStore.ts"
import * as StoreBreaker from "../store/StoreBreaker.ts"
import type { Disagreed } from "../endpoint/FinalityQuorum.ts"
import { ForkStandoff } from "./ForkStandoff.ts"
import * as JournalWriter from "./JournalWriter.ts"
import { Provenance } from "./Provenance.ts"
import { RecentHeaders } from "./RecentHeaders.ts"

export interface ChainState {
  readonly status: ChainStatus
  readonly writer: JournalWriter.JournalWriter
  readonly provenance: Provenance
  readonly standoff: ForkStandoff
  readonly recentHeaders: RecentHeaders
  readonly pushLimits: PushLimits
  readonly housekeeping: Housekeeping.Housekeeping
  readonly disagreed: Disagreed
  readonly storeBreaker: StoreBreaker.StoreBreaker
  /** The breaker of the chain as a whole. */
  readonly breaker: Breaker
}

/** The state of a chain, with its housekeeping and store breaker running as long as the scope. */
export const make = Effect.fnUntraced(function* (
  chain: ChainConfig,
): Effect.fn.Return<ChainState, never, AppConfig | JournalStore | Status | Scope.Scope> {
  const store = yield* JournalStore
  const { retention } = yield* AppConfig
  const status = (yield* Status).chain(chain.name)
  const storeBreaker = yield* StoreBreaker.make(store.ping(chain.id))
  status.storeBreaker = storeBreaker.breaker
  return {
    status,
    storeBreaker,
    breaker: yield* makeBreaker,
    writer: yield* JournalWriter.make(chain, storeBreaker),
    housekeeping: yield* Housekeeping.make(store.trim(chain.id), retention, (holder) =>
      status.setHolder(holder),
    ),
    pushLimits: new PushLimits(store.limits),
    provenance: new Provenance(),
    standoff: new ForkStandoff(),
    recentHeaders: new RecentHeaders(),
    disagreed: { endpoints: [], at: -Infinity },
  }
})
