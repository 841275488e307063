/** The state of all chains and of the store: read by the metrics, the HTTP routes and the demo's screen. */
import { Clock, Context, Effect, Layer, Metric } from "effect"
import { operations } from "../chain/ChainEvents.ts"
import type { Operation } from "../chain/ChainEvents.ts"
import { AppConfig } from "../config/AppConfig.ts"
import { systemOf } from "../config/StoreConfig.ts"
import { removeSeries } from "./MetricFamily.ts"
import type { Registry } from "./MetricFamily.ts"
import { Fleet } from "../fleet/Fleet.ts"
import * as Monotonic from "../Monotonic.ts"
import { Dropped } from "../Tracing.ts"
import { ChainStatus } from "./ChainStatus.ts"
import * as ChainMetrics from "./ChainMetrics.ts"
import { EventLoopLag } from "./EventLoopLag.ts"
import * as EndpointMetrics from "./EndpointMetrics.ts"
import * as ProcessMetrics from "./ProcessMetrics.ts"
import * as StoreMetrics from "./StoreMetrics.ts"
import { StoreStatus } from "./StoreStatus.ts"

export class Status extends Context.Service<
  Status,
  {
    /** Monotonic milliseconds. */
    readonly startedSince: number
    readonly chains: ReadonlyArray<ChainStatus>
    readonly chain: (name: string) => ChainStatus
    readonly store: StoreStatus
    readonly eventLoopLag: EventLoopLag
    /** Records the duration of a store operation, in seconds. */
    readonly storeOperation: (operation: Operation, seconds: number) => void
    readonly registry: Registry
  }
>()("event-ingestor/Status") {
  static readonly layer = Layer.effect(
    this,
    Effect.gen(function* () {
      const config = yield* AppConfig
      const clock = yield* Clock.Clock
      const registry = Context.make(Metric.MetricRegistry, yield* Metric.MetricRegistry)
      const startedSince = Monotonic.millisUnsafe(clock)
      const chains = config.chains.map((chain) => new ChainStatus(chain, clock))
      const store = new StoreStatus(systemOf(config.store), chains)
      for (const chain of chains) {
        const register = () => {
          ChainMetrics.register(chain, registry)
          for (const endpoint of chain.endpoints) EndpointMetrics.register(chain.name, endpoint, registry)
        }
        chain.onFollowed = (followed) => {
          // A series of a chain that is elsewhere would say that it stands still.
          removeSeries("chain", chain.name, registry)
          ChainMetrics.registerFollowed(chain, registry)
          if (followed) register()
        }
        ChainMetrics.registerFollowed(chain, registry)
        register()
        if (config.fleet !== undefined) chain.setFollowed(false)
      }
      const { view } = yield* Fleet
      // A process without a fleet is alone.
      ProcessMetrics.registerFleet(config.fleet?.name ?? "", () => view()?.members.length ?? 1, registry)
      StoreMetrics.register(store, registry)
      const eventLoopLag = new EventLoopLag()
      ProcessMetrics.register(clock.currentTimeMillisUnsafe(), eventLoopLag, yield* Dropped, registry)
      const recorders = new Map(
        operations.map((operation) => [
          operation,
          StoreMetrics.operationDuration.record({ operation }, registry),
        ]),
      )
      return {
        startedSince,
        chains,
        chain: (name) => chains.find((chain) => chain.name === name)!,
        store,
        eventLoopLag,
        storeOperation: (operation, seconds) => recorders.get(operation)!(seconds),
        registry,
      }
    }),
  )
}
