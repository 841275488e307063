/** A fault that is inflicted on a cluster. */
import type { Effect, Scope } from "effect"
import type { Cluster, Kind } from "./Cluster.ts"

/** One kind of failure. */
export interface Fault {
  readonly name: string
  readonly stores: ReadonlyArray<Kind>
  /** How often it is inflicted in a row, if there is time. */
  readonly times: number
  /**
   * Inflicts the fault and, if it lasts, ends it. The recovery starts when this completes. The chain grows meanwhile. The scope
   * is the cluster's.
   */
  readonly inflict: (cluster: Cluster) => Effect.Effect<void, unknown, Scope.Scope>
  /** How many services share the chain and the store (default 1). */
  readonly ingestors?: number
  /** Whether the service follows a neighbour chain, which must not be affected (default: no). */
  readonly neighbour?: boolean
  /** Whether the store is down: moves must be accepted soon after the fault ends (default: no). */
  readonly away?: boolean
}
