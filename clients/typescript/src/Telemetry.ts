/** Metrics and spans by OpenTelemetry, where the program has its API; nothing otherwise. */
import type * as Api from "@opentelemetry/api"
import type { Step } from "./Plan.ts"

export interface Telemetry {
  /** Runs a handler in a span that continues the trace of the block. */
  readonly handling: <A>(step: Step, handler: () => Promise<A>) => Promise<A>
  readonly done: (step: Step) => void
  readonly failed: (step: Step) => void
  readonly reconciled: () => void
  /** @param blocks blocks of the journal that are not delivered */
  readonly lag: (blocks: number) => void
}

const none: Telemetry = {
  handling: (_, handler) => handler(),
  done: () => {},
  failed: () => {},
  reconciled: () => {},
  lag: () => {},
}

const make = (
  { metrics, trace, context, propagation, SpanKind, SpanStatusCode, ROOT_CONTEXT }: typeof Api,
  name: string,
  chain: number,
): Telemetry => {
  const meter = metrics.getMeter("@event-ingestor/consumer")
  const tracer = trace.getTracer("@event-ingestor/consumer")
  const attributes = { chain: String(chain), reader: name }
  const applied = meter.createCounter("event_ingestor_consumer_logs_applied", { description: "Logs applied" })
  const retracted = meter.createCounter("event_ingestor_consumer_logs_retracted", {
    description: "Logs retracted by reorgs",
  })
  const failures = meter.createCounter("event_ingestor_consumer_handler_failures", {
    description: "Failed handler calls",
  })
  const reconciled = meter.createCounter("event_ingestor_consumer_reconciliations", {
    description: "Times that the store had been set back",
  })
  const duration = meter.createHistogram("event_ingestor_consumer_handler_duration", {
    description: "Time of a handler call",
    unit: "s",
  })
  const lagBlocks = meter.createGauge("event_ingestor_consumer_lag_blocks", {
    description: "Blocks not delivered yet",
  })
  const lagSeconds = meter.createGauge("event_ingestor_consumer_lag_seconds", {
    description: "Age of the last delivered block when it was delivered",
    unit: "s",
  })

  const parentOf = ({ block }: Step): Api.Context => {
    const traceparent = block.logs.find((log) => log.traceparent !== undefined)?.traceparent
    return traceparent === undefined ? context.active() : propagation.extract(ROOT_CONTEXT, { traceparent })
  }

  return {
    handling: async (step, handler) => {
      const options = {
        kind: SpanKind.CONSUMER,
        attributes: { ...attributes, "block.number": step.block.number, "block.hash": step.block.hash },
      }
      const began = performance.now()
      const run = async (span: Api.Span) => {
        try {
          return await handler()
        } catch (error) {
          span.setStatus({ code: SpanStatusCode.ERROR, message: String(error) })
          throw error
        } finally {
          span.end()
          duration.record((performance.now() - began) / 1000, attributes)
        }
      }
      return tracer.startActiveSpan(`${step.kind} block`, options, parentOf(step), run)
    },
    done: ({ kind, block }) => {
      ;(kind === "apply" ? applied : retracted).add(block.logs.length, attributes)
      lagSeconds.record(Math.max(Date.now() / 1000 - block.timestamp, 0), attributes)
    },
    failed: () => failures.add(1, attributes),
    reconciled: () => reconciled.add(1, attributes),
    lag: (blocks) => lagBlocks.record(blocks, attributes),
  }
}

/** Loads the API if it is installed. */
export const loadTelemetry = async (name: string, chain: number): Promise<Telemetry> => {
  try {
    return make(await import("@opentelemetry/api"), name, chain)
  } catch {
    return none
  }
}
