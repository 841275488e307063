/** What a metric is, how a table of metrics is defined, and how series are registered with Effect. */
import { Context, Metric } from "effect"

type MetricType = "counter" | "gauge" | "histogram"

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

/** Removes every series with this label, histograms too. They may be registered again. */
export const removeSeries = (label: string, value: string, registry: Registry): void => {
  const series = Context.get(registry, Metric.MetricRegistry)
  for (const [key, { attributes }] of series) if (attributes?.[label] === value) series.delete(key)
}

/** Names are `event_ingestor_…`. */
const ours = (given: string) => ({ name: `event_ingestor_${given}` })
/** The metrics of the original system also exist under their bare names. */
const originals = (given: string) => ({ ...ours(given), bareName: given })
/** Metrics of the Node process have the names of prom-client, so that common dashboards work. */
const standard = (given: string) => ({ name: given })

/** A table of metrics, in the order of their definitions. */
export const makeTable = () => {
  const definitions: Array<Definition> = []
  const define =
    (type: MetricType, naming: (given: string) => Pick<Definition, "name" | "bareName"> = ours) =>
    <const Label extends string = never>(
      given: string,
      labels: ReadonlyArray<Label>,
      unit: Unit,
      help: string,
      buckets?: ReadonlyArray<number>,
    ): Family<Label> => {
      const definition = { ...naming(given), type, unit, labels, help, ...(buckets && { buckets }) }
      definitions.push(definition)
      return new Family<Label>(definition)
    }
  return {
    definitions,
    counter: define("counter"),
    gauge: define("gauge"),
    histogram: define("histogram"),
    originalCounter: define("counter", originals),
    originalGauge: define("gauge", originals),
    standardCounter: define("counter", standard),
    standardGauge: define("gauge", standard),
  }
}

/** Latencies: 1 ms … 60 s in steps of 1, 2.5, 5. */
export const latencies = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 60]
