/** The status of the store. */
import { stateOf } from "../Retry.ts"
import type { BreakerState } from "../Retry.ts"
import { evictsStreams } from "../store/StoreAdmin.ts"
import type { Info } from "../store/StoreAdmin.ts"
import type { ChainStatus } from "./ChainStatus.ts"

export class StoreStatus {
  description: string
  info: Info | undefined
  /** Why the last poll failed; `undefined`: it did not. */
  failure: string | undefined = "not polled yet"
  readonly #chains: ReadonlyArray<Pick<ChainStatus, "storeBreakerState">>

  constructor(description: string, chains: ReadonlyArray<Pick<ChainStatus, "storeBreakerState">>) {
    this.description = description
    this.#chains = chains
  }

  /** The breaker state of the chain with the most consecutive store failures. */
  get breakerState(): BreakerState {
    return this.#chains
      .map((chain) => chain.storeBreakerState)
      .reduce((worst, one) => (one.failures > worst.failures ? one : worst), stateOf(undefined))
  }

  /** Whether Redis may evict streams. */
  get evictionUnsafe(): boolean {
    return evictsStreams(this.info?.evictionPolicy)
  }
}
