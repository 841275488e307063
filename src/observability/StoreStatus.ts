/** What is known of the store, for whoever wants to know. */
import { stateOf } from "../Retry.ts"
import type { BreakerState } from "../Retry.ts"
import { evictsStreams } from "../store/Store.ts"
import type { Info } from "../store/Store.ts"
import type { ChainStatus } from "./ChainStatus.ts"

export class StoreStatus {
  description: string
  info: Info | undefined
  readonly #chains: ReadonlyArray<Pick<ChainStatus, "storeBreakerState">>

  constructor(description: string, chains: ReadonlyArray<Pick<ChainStatus, "storeBreakerState">>) {
    this.description = description
    this.#chains = chains
  }

  /** That of the chain whose moves failed most often in a row. */
  get breakerState(): BreakerState {
    return this.#chains
      .map((chain) => chain.storeBreakerState)
      .reduce((worst, one) => (one.failures > worst.failures ? one : worst), stateOf(undefined))
  }

  /** Whether Redis may delete what is needed. */
  get evictionUnsafe(): boolean {
    return evictsStreams(this.info?.evictionPolicy)
  }
}
