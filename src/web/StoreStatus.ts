/** What is known of the store, for whoever wants to know. */
import { stateOf } from "../endpoint/RetryPolicy.ts"
import type { Breaker, BreakerState } from "../endpoint/RetryPolicy.ts"
import type { Info } from "../store/Store.ts"

export class StoreStatus {
  description: string
  breaker: Breaker | undefined
  info: Info | undefined

  constructor(description: string) {
    this.description = description
  }

  get breakerState(): BreakerState {
    return stateOf(this.breaker)
  }

  /** Whether Redis may delete what is needed. */
  get evictionUnsafe(): boolean {
    const policy = this.info?.evictionPolicy
    return policy !== undefined && policy !== "noeviction"
  }
}
