/** The state of all chains and of the store: read by the metrics, the HTTP routes and the demo's screen. */
import { Clock, Context, Effect, Layer, Metric } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import * as Metrics from "./Metrics.ts"
import type { Registry } from "./MetricFamily.ts"
import * as Monotonic from "../Monotonic.ts"
import { Dropped } from "./Tracing.ts"
import { ChainStatus } from "./ChainStatus.ts"
import * as Series from "./Series.ts"
import { StoreStatus } from "./StoreStatus.ts"

/** The store operations whose duration is recorded. */
export type Operation = "load" | "push" | "pop" | "finalize"

export class Status extends Context.Service<
  Status,
  {
    /** Monotonic milliseconds. */
    readonly startedSince: number
    readonly chains: ReadonlyArray<ChainStatus>
    readonly chain: (name: string) => ChainStatus
    readonly store: StoreStatus
    /** Records the duration of a store operation, in seconds. */
    readonly storeOperation: Readonly<Record<Operation, (seconds: number) => void>>
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
      const chains = config.chains.map((chain) => new ChainStatus(chain, clock, registry))
      const store = new StoreStatus(config.store._tag === "Sqlite" ? "sqlite" : "redis", chains)
      for (const chain of chains) Series.ofChain(chain, clock, registry)
      Series.ofStore(store, registry)
      Series.ofProcess(clock.currentTimeMillisUnsafe(), registry)
      Series.ofTelemetry(yield* Dropped, registry)
      const recorder = (operation: Operation) =>
        Metrics.storeOperationDuration.record({ operation }, registry)
      return {
        startedSince,
        chains,
        chain: (name) => chains.find((chain) => chain.name === name)!,
        store,
        storeOperation: {
          load: recorder("load"),
          push: recorder("push"),
          pop: recorder("pop"),
          finalize: recorder("finalize"),
        },
        registry,
      }
    }),
  )
}
