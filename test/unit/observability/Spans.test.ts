/** What the SDK gets of Effect's spans. */
import { assert, describe, it } from "@effect/vitest"
import { emptyResource } from "@opentelemetry/resources"
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-base"
import type { ReadableSpan, Sampler } from "@opentelemetry/sdk-trace-base"
import { Effect, Exit, Fiber, Tracer } from "effect"
import { makeTracer } from "../../../src/observability/Spans.ts"

/** Runs an effect whose spans a sampler keeps, and returns those that were passed on. */
const spansOf = (sampler: Sampler, effect: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function* () {
    const ended: Array<ReadableSpan> = []
    const tracer = makeTracer(sampler, emptyResource(), (span) => void ended.push(span))
    yield* Effect.exit(Effect.provideService(effect, Tracer.Tracer, tracer))
    return ended
  })

const nested = Effect.withSpan(
  Effect.withSpan(Effect.void, "inner", { kind: "client", attributes: { count: 2 } }),
  "outer",
  { root: true, kind: "consumer" },
)

const seconds = ([whole, nanos]: ReadableSpan["startTime"]) => whole + nanos / 1e9

describe("the spans for the SDK", () => {
  it.effect("are passed on when they end, the inner one with its attributes and its parent", () =>
    Effect.gen(function* () {
      const [inner, outer, ...others] = yield* spansOf(new AlwaysOnSampler(), nested)
      assert.deepStrictEqual(others, [])
      assert.deepStrictEqual([inner!.name, outer!.name], ["inner", "outer"])
      assert.deepStrictEqual([inner!.kind, outer!.kind], [2, 4])
      assert.strictEqual(inner!.parentSpanContext?.spanId, outer!.spanContext().spanId)
      assert.strictEqual(inner!.spanContext().traceId, outer!.spanContext().traceId)
      assert.isUndefined(outer!.parentSpanContext)
      assert.strictEqual(inner!.attributes["count"], 2)
      assert.strictEqual(outer!.status.code, 1)
      assert.match(outer!.spanContext().traceId, /^[0-9a-f]{32}$/)
      assert.match(outer!.spanContext().spanId, /^[0-9a-f]{16}$/)
    }),
  )

  it.live("begin and end at the time of the clock", () =>
    Effect.gen(function* () {
      const since = Date.now() / 1000
      const [inner] = yield* spansOf(new AlwaysOnSampler(), Effect.withSpan(Effect.sleep(5), "sleep"))
      const [start, end] = [seconds(inner!.startTime), seconds(inner!.endTime)]
      assert.isAtLeast(start, since - 0.01)
      assert.isAtLeast(end - start, 0.004)
      assert.isAtMost(end, Date.now() / 1000 + 0.01)
      assert.closeTo(seconds(inner!.duration), end - start, 1e-5)
    }),
  )

  it.effect("tell of a failure as an exception, and of an interruption as an attribute", () =>
    Effect.gen(function* () {
      const failing = Effect.withSpan(Effect.die(new Error("no answer")), "failing")
      const [failed] = yield* spansOf(new AlwaysOnSampler(), failing)
      assert.deepStrictEqual(failed!.status, { code: 2, message: "no answer" })
      const [exception] = failed!.events
      assert.strictEqual(exception!.name, "exception")
      assert.strictEqual(exception!.attributes?.["exception.message"], "no answer")
      assert.strictEqual(exception!.attributes?.["exception.type"], "Error")

      const interrupting = Effect.flatMap(
        Effect.forkChild(Effect.withSpan(Effect.never, "waiting"), { startImmediately: true }),
        Fiber.interrupt,
      )
      const [interrupted] = yield* spansOf(new AlwaysOnSampler(), interrupting)
      assert.strictEqual(interrupted!.status.code, 0)
      assert.isTrue(interrupted!.attributes["effect.fiber.interrupted"])
    }),
  )

  it.effect("end once, and have the events and links that they got before", () =>
    Effect.gen(function* () {
      const ended: Array<ReadableSpan> = []
      const tracer = makeTracer(new AlwaysOnSampler(), emptyResource(), (span) => void ended.push(span))
      const tracing = Effect.provideService(Effect.makeSpan("one"), Tracer.Tracer, tracer)
      const [one, other] = [yield* tracing, yield* tracing]
      one.event("seen", 1_500_000_000n, { why: "test" })
      one.addLinks([{ span: other, attributes: {} }])
      one.end(2_000_000_000n, Exit.void)
      one.end(3_000_000_000n, Exit.void)
      assert.strictEqual(ended.length, 1)
      assert.deepStrictEqual(ended[0]!.endTime, [2, 0])
      assert.deepStrictEqual(ended[0]!.events, [
        { name: "seen", time: [1, 500_000_000], attributes: { why: "test" } },
      ])
      assert.strictEqual(ended[0]!.links[0]!.context.spanId, other.spanId)
    }),
  )

  it.effect("of a trace that is not sampled are not passed on, and a sampler keeps whole traces", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* spansOf(new AlwaysOffSampler(), nested), [])
      const half = new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(0.5) })
      const spans = yield* spansOf(half, Effect.repeat(nested, { times: 199 }))
      const traces = Map.groupBy(spans, (span) => span.spanContext().traceId)
      assert.isAbove(traces.size, 50)
      assert.isBelow(traces.size, 150)
      for (const trace of traces.values()) assert.strictEqual(trace.length, 2)
    }),
  )
})
