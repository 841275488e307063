/** What a metric is, and how its series are registered with Effect. */
import { Metric } from "effect"
import type { Context } from "effect"

export type MetricType = "counter" | "gauge" | "histogram"

/** The unit as OpenTelemetry writes it. */
export type Unit =
  | "1"
  | "s"
  | "By"
  | "{log}"
  | "{block}"
  | "{entry}"
  | "{error}"
  | "{request}"
  | "{reconnect}"

export interface Definition {
  readonly name: string
  /** The name in the original system: the same series exist under this name too. */
  readonly bareName?: string
  readonly type: MetricType
  readonly unit: Unit
  readonly labels: ReadonlyArray<string>
  readonly help: string
  readonly buckets?: ReadonlyArray<number>
}

/** The context that holds the series. */
export type Registry = Context.Context<never>

/** Every name of a metric. */
export const namesOf = ({ name, bareName }: Definition): ReadonlyArray<string> =>
  bareName === undefined ? [name] : [name, bareName]

/** One metric with all its series. */
export class Family<Label extends string = never> {
  readonly definition: Definition

  constructor(definition: Definition) {
    this.definition = definition
  }

  #options(labels: Record<Label, string>) {
    const { help, unit } = this.definition
    return { description: help, attributes: { ...labels, unit } }
  }

  /** Registers a series under each of its names; its value is read at each scrape. Returns its registration. */
  read(labels: Record<Label, string>, value: () => number, registry: Registry): Metric.Registration {
    const { type } = this.definition
    const options = this.#options(labels)
    const ignore = () => {}
    const registered = namesOf(this.definition).map((name) =>
      type === "counter"
        ? Metric.registerUnsafe(Metric.counter(name, { ...options, incremental: true }), registry, {
            get: () => ({ count: value(), incremental: true }),
            update: ignore,
            modify: ignore,
          })
        : Metric.registerUnsafe(Metric.gauge(name, options), registry, {
            get: () => ({ value: value() }),
            update: ignore,
            modify: ignore,
          }),
    )
    return { remove: () => registered.forEach((one) => one.remove()) }
  }

  /** Registers an empty histogram and returns the function that records a value. */
  record(labels: Record<Label, string>, registry: Registry): (value: number) => void {
    const { name, buckets = [] } = this.definition
    const histogram = Metric.histogram(name, { ...this.#options(labels), boundaries: buckets })
    histogram.valueUnsafe(registry)
    return (value) => histogram.updateUnsafe(value, registry)
  }
}
