/**
 * `/events`: what the page shows, as server-sent events, for at most ten readers at once.
 *
 * `history` comes first: the curves of the last minutes. Then, every second, `status` (what `/status` answers) and, when
 * entries were written, `entries`: by chain how many there were so far (`seq`) and the last of those this reader has not
 * seen. Nothing is queued for a reader: an event is made when the one before has left, from what there is then. A slow
 * reader misses some, and one that takes nothing at all is cut off.
 */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Context, Duration, Effect, Schedule, Stream } from "effect"
import { Sse } from "effect/encoding"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { sampleEvery } from "../observability/Sparkline.ts"
import * as Report from "./Report.ts"
import type { Status } from "../observability/Status.ts"
import type { Row } from "./RecentEntries.ts"

export const mostReaders = 10

/** Distance of two events, and how long a reader may take nothing. */
export const SseTiming = Context.Reference<{
  readonly every: Duration.Duration
  readonly stuckAfter: Duration.Duration
}>("event-ingestor/web/Pace", {
  defaultValue: () => ({ every: Duration.seconds(1), stuckAfter: Duration.seconds(15) }),
})

/** How long a browser waits before it asks again. */
const retry = Sse.encoder.write(new Sse.Retry({ duration: Duration.seconds(2), lastEventId: undefined }))

const event = (name: string, data: unknown) =>
  Sse.encoder.write({ _tag: "Event", event: name, id: undefined, data: JSON.stringify(data) })

const historyOf = ({ chains }: Status["Service"]) => ({
  every_ms: sampleEvery,
  chains: Object.fromEntries(
    chains.map(({ name, history }) => [name, { lag_s: history.lag, logs_per_s: history.rate }]),
  ),
})

/** What one reader has not seen yet. */
const makeReader = (status: Status["Service"]) => {
  const seen = new Map<string, number>()
  let first = true
  return (now: Report.Now): string => {
    let text = first ? retry + event("history", historyOf(status)) : ""
    first = false
    text += event("status", Report.statusReport(status, now))
    const entries: Record<string, { readonly seq: number; readonly rows: ReadonlyArray<Row> }> = {}
    for (const { name, tail } of status.chains) {
      const before = seen.get(name)
      if (before === tail.seq) continue
      entries[name] = { seq: tail.seq, rows: tail.after(before ?? 0) }
      seen.set(name, tail.seq)
    }
    if (Object.keys(entries).length > 0) text += event("entries", entries)
    return text
  }
}

/** The events for one reader, for ever; each is made when it is asked for. */
export const events = (status: Status["Service"], every: Duration.Duration): Stream.Stream<string> =>
  Stream.suspend(() =>
    Stream.fromEffectSchedule(Effect.map(Report.now, makeReader(status)), Schedule.spaced(every)),
  )

const headers = { "cache-control": "no-store", "x-accel-buffering": "no" }

/** Answers one request with events. `full` is the answer when there are ten readers already. */
export const make = (status: Status["Service"], full: HttpServerResponse.HttpServerResponse) => {
  let readers = 0
  const takePlace = Effect.acquireRelease(
    Effect.sync(() => readers++),
    () => Effect.sync(() => readers--),
  )
  return Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    if (readers >= mostReaders) return full
    const contentType = "text/event-stream"
    if (request.method === "HEAD")
      return HttpServerResponse.empty({ status: 200, headers: { ...headers, "content-type": contentType } })
    const { every, stuckAfter } = yield* SseTiming
    // The place is free again when the request's scope closes, which is when the connection has ended.
    yield* takePlace
    NodeHttpServerRequest.toIncomingMessage(request).socket.setTimeout(Duration.toMillis(stuckAfter))
    return HttpServerResponse.stream(Stream.encodeText(events(status, every)), { contentType, headers })
  })
}
