/**
 * Effect's spans, handed to OpenTelemetry's SDK once they have ended. A span of the SDK does more while it lives than is needed
 * here: limits, contexts, its own identifiers and copies of what the span of Effect has already. Here, it is one object.
 */
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags } from "@opentelemetry/api"
import type { Attributes, HrTime } from "@opentelemetry/api"
import type { InstrumentationScope } from "@opentelemetry/core"
import type { Resource } from "@opentelemetry/resources"
import { SamplingDecision } from "@opentelemetry/sdk-trace-base"
import type { ReadableSpan, Sampler, TimedEvent } from "@opentelemetry/sdk-trace-base"
import { Cause, Option, Tracer } from "effect"
import type { Exit } from "effect"
import { version } from "../Version.ts"

const kinds: Record<Tracer.SpanKind, SpanKind> = {
  internal: SpanKind.INTERNAL,
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
}

const scope: InstrumentationScope = { name: "event-ingestor", version }

/** Exact to 256 ns: as a number, today's time has no more digits. */
const hrTime = (nanos: number): HrTime => [Math.floor(nanos / 1e9), nanos % 1e9]

const contextOf = ({ traceId, spanId, sampled }: Tracer.AnySpan) => ({
  traceId,
  spanId,
  traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
})

/** An event named `exception` (https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/). */
const exceptionEvent = ({ name, message, stack }: Error, time: HrTime): TimedEvent => ({
  name: "exception",
  time,
  attributes: {
    "exception.type": name,
    "exception.message": message,
    ...(stack !== undefined && { "exception.stacktrace": stack }),
  },
})

/** How a span has ended, in the form in which `@effect/opentelemetry` exports it. */
const outcomeOf = (exit: Exit.Exit<unknown, unknown>) => {
  if (exit._tag === "Success") return { status: { code: SpanStatusCode.OK }, errors: [] }
  if (Cause.hasInterruptsOnly(exit.cause))
    return { status: { code: SpanStatusCode.UNSET }, errors: [], isInterrupted: true }
  const errors = Cause.prettyErrors(exit.cause, { includeCauseInStack: true })
  return { status: { code: SpanStatusCode.ERROR, message: errors[0]?.message ?? "" }, errors }
}

/** What the SDK exports of a span that has ended. */
const readable = (
  span: Tracer.NativeSpan,
  endTime: bigint,
  exit: Exit.Exit<unknown, unknown>,
  resource: Resource,
): ReadableSpan => {
  const context = contextOf(span)
  const [start, end] = [Number(span.startTime), Number(endTime)]
  const parent = Option.getOrUndefined(span.parent)
  const { status, errors, isInterrupted } = outcomeOf(exit)
  return {
    name: span.name,
    kind: kinds[span.kind],
    spanContext: () => context,
    ...(parent && { parentSpanContext: contextOf(parent) }),
    startTime: hrTime(start),
    endTime: hrTime(end),
    duration: hrTime(end - start),
    ended: true,
    status,
    attributes: {
      ...(Object.fromEntries(span.attributes) as Attributes),
      ...(isInterrupted && { "effect.fiber.interrupted": true }),
    },
    links: span.links.map((link) => ({
      context: contextOf(link.span),
      attributes: link.attributes as Attributes,
    })),
    events: [
      ...span.events.map(([name, time, attributes]) => ({
        name,
        time: hrTime(Number(time)),
        attributes: attributes as Attributes,
      })),
      ...errors.map((error) => exceptionEvent(error, hrTime(end))),
    ],
    resource,
    instrumentationScope: scope,
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  }
}

/**
 * A tracer whose sampled spans are passed on when they end. The sampler decides for each trace, by its first span.
 *
 * @param resource what the spans are from
 */
export const makeTracer = (
  sampler: Sampler,
  resource: Resource,
  onEnd: (span: ReadableSpan) => void,
): Tracer.Tracer => {
  const isSampled = ({ traceId, name, kind }: Tracer.NativeSpan): boolean =>
    sampler.shouldSample(ROOT_CONTEXT, traceId, name, kinds[kind], {}, []).decision ===
    SamplingDecision.RECORD_AND_SAMPLED

  class ExportedSpan extends Tracer.NativeSpan {
    override readonly sampled: boolean

    constructor(options: ConstructorParameters<typeof Tracer.NativeSpan>[0]) {
      super(options)
      this.sampled = Option.match(this.parent, {
        onNone: () => isSampled(this),
        onSome: ({ sampled }) => sampled,
      })
    }

    override end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
      if (this.status._tag === "Ended") return
      super.end(endTime, exit)
      if (this.sampled) onEnd(readable(this, endTime, exit, resource))
    }
  }
  return Tracer.make({ span: (options) => new ExportedSpan(options) })
}
