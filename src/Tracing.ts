/**
 * One trace per announced head: announced → fetched (each request is a span) → pushed. A no-op unless tracing is enabled.
 */
import { Clock, Context, Effect, Exit, Option, Tracer } from "effect"

/** Whether traces are exported. */
export const Tracing = Context.Reference<boolean>("event-ingestor/Tracing", { defaultValue: () => false })

export const signals = ["traces", "metrics", "logs"] as const

export type Signal = (typeof signals)[number]

/** Counts of the spans, data points and log records that were not delivered. */
export const Dropped = Context.Reference<Record<Signal, number>>("event-ingestor/Dropped", {
  defaultValue: () => ({ traces: 0, metrics: 0, logs: 0 }),
})

/** The maximum number of unfinished traces; above it the oldest is abandoned. */
const mostOpen = 64

/** The maximum number of links from a trace to the heads that were coalesced into its head. */
export const mostLinks = 16

/** The W3C trace context of a sampled span (https://www.w3.org/TR/trace-context/#traceparent-header). */
export const traceparent = (span: Tracer.Span | undefined): string | undefined =>
  span?.sampled ? `00-${span.traceId}-${span.spanId}-01` : undefined

/** Runs an effect inside a block's trace, if there is one. */
export const within =
  (span: Tracer.Span | undefined) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    span === undefined ? effect : Effect.provideService(effect, Tracer.ParentSpan, span)

/** The traces of one chain. */
export interface BlockTraces {
  /** Starts the trace of an announced head; `undefined` if tracing is disabled, or the trace not sampled. */
  readonly announced: (head: { readonly number: number; readonly hash: string }) => Tracer.Span | undefined
  /** Ends the traces of heads that were coalesced into a newer head. */
  readonly coalesced: (spans: ReadonlyArray<Tracer.Span>, by: Tracer.Span | undefined) => void
  /** Ends the trace of a head that is fully handled. */
  readonly done: (span: Tracer.Span | undefined) => void
  /** Ends all open traces as failed. */
  readonly abandon: (why: string) => Effect.Effect<void>
}

const disabled: BlockTraces = {
  announced: () => undefined,
  coalesced: () => {},
  done: () => {},
  abandon: () => Effect.void,
}

/** The traces of a chain's heads; a no-op unless tracing is enabled. */
export const blockTraces = (chain: {
  readonly name: string
  readonly id: number
}): Effect.Effect<BlockTraces> =>
  Effect.gen(function* () {
    if (!(yield* Tracing)) return disabled
    const tracer = yield* Effect.tracer
    const clock = yield* Clock.Clock
    const open = new Set<Tracer.Span>()

    const end = (span: Tracer.Span, exit: Exit.Exit<unknown, unknown>) => {
      if (open.delete(span)) span.end(clock.currentTimeNanosUnsafe(), exit)
    }
    const abandonSpan = (span: Tracer.Span, why: string) => {
      span.event("abandoned", clock.currentTimeNanosUnsafe(), { "event_ingestor.reason": why })
      end(span, Exit.fail(why))
    }

    return {
      announced: ({ number, hash }) => {
        const span = tracer.span({
          name: "block",
          parent: Option.none(),
          annotations: Context.empty(),
          links: [],
          startTime: clock.currentTimeNanosUnsafe(),
          kind: "consumer",
          root: true,
          sampled: true,
        })
        if (!span.sampled) return undefined
        span.attribute("event_ingestor.chain", chain.name)
        span.attribute("event_ingestor.chain_id", chain.id)
        span.attribute("event_ingestor.block.number", number)
        span.attribute("event_ingestor.block.hash", hash)
        open.add(span)
        if (open.size > mostOpen) abandonSpan(open.values().next().value!, "too many open traces")
        return span
      },
      coalesced: (spans, by) => {
        by?.addLinks(spans.slice(-mostLinks).map((span) => ({ span, attributes: {} })))
        for (const span of spans) {
          span.event("coalesced into a newer head", clock.currentTimeNanosUnsafe())
          end(span, Exit.void)
        }
      },
      done: (span) => span && end(span, Exit.void),
      abandon: (why) =>
        Effect.sync(() => {
          for (const span of open) abandonSpan(span, why)
        }),
    }
  })

/** Records a lost connection, which belongs to no block, as a root span. */
export const traceFailure = (
  error: { readonly message: string },
  attributes: Readonly<Record<string, unknown>>,
): Effect.Effect<void> =>
  Effect.flatMap(Tracing, (isEnabled) =>
    isEnabled
      ? Effect.ignore(
          Effect.withSpan(Effect.fail(error), "connection lost", { root: true, kind: "client", attributes }),
        )
      : Effect.void,
  )

/** What a span within a block's trace is made of. */
interface Part {
  readonly name: string
  readonly kind: Tracer.SpanKind
  readonly attributes: () => Readonly<Record<string, unknown>>
}

/** Runs an effect as a span of a block's trace. `Effect.withSpan` costs twice as much: nothing here looks up its span. */
const asPart = <A, E, R>(
  parent: Tracer.AnySpan,
  { name, kind, attributes }: Part,
  effect: Effect.Effect<A, E, R>,
): Effect.Effect<A, E, R> =>
  Effect.contextWith((context: Context.Context<R>) => {
    const clock = Context.get(context, Clock.Clock)
    const span = Context.get(context, Tracer.Tracer).span({
      name,
      kind,
      parent: Option.some(parent),
      annotations: Context.empty(),
      links: [],
      startTime: clock.currentTimeNanosUnsafe(),
      root: false,
      sampled: true,
    })
    for (const [key, value] of Object.entries(attributes())) span.attribute(key, value)
    return Effect.onExit(effect, (exit) => Effect.sync(() => span.end(clock.currentTimeNanosUnsafe(), exit)))
  })

/** Traces a request to an endpoint as a span of the block that it fetches; other requests have no span. */
export const traceRequest = (
  endpoint: string,
  method: string,
  calls: number,
): (<A, E, R>(request: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>) => {
  const attributes = () => ({
    "rpc.system.name": "jsonrpc",
    "rpc.method": method,
    "event_ingestor.endpoint": endpoint,
    ...(calls > 1 && { "event_ingestor.calls": calls }),
  })
  return (request) =>
    Effect.contextWith((context) => {
      const parent = Context.getOption(context as Context.Context<Tracer.ParentSpan>, Tracer.ParentSpan)
      return Option.isSome(parent) && parent.value.sampled
        ? asPart(parent.value, { name: method, kind: "client", attributes }, request)
        : request
    })
}

/** Traces a move as a span of its block, where that is traced. */
export const traceMove = (
  span: Tracer.Span | undefined,
  move: string,
  attributes: () => Readonly<Record<string, unknown>>,
): (<A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>) =>
  span?.sampled
    ? (effect) => asPart(span, { name: move, kind: "producer", attributes }, effect)
    : (effect) => effect
