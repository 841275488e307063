/**
 * `/events`: the data of the page as server-sent events, for at most ten concurrent readers.
 *
 * The first event is `history`: the curves of the last minutes. Then, every second, `status` (the body of `/status`) and,
 * when entries were written, `entries`: per chain the number of entries so far (`seq`) and the latest ones that this reader
 * has not received. Nothing is queued: an event is built from the current state once the previous one has been sent. A slow
 * reader misses some events, and a reader that stops reading is disconnected.
 */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Context, Duration, Effect, Schedule, Stream } from "effect"
import { Sse } from "effect/encoding"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { sampleEvery } from "../observability/Sparkline.ts"
import type { Fleet } from "../fleet/Fleet.ts"
import * as Report from "./Report.ts"
import type { Status } from "../observability/Status.ts"
import type { Row } from "../observability/RecentEntries.ts"

export const mostReaders = 10

/** The interval between events, and how long a reader may read nothing before it is disconnected. */
export const SseTiming = Context.Reference<{
  readonly every: Duration.Duration
  readonly stuckAfter: Duration.Duration
}>("event-ingestor/SseTiming", {
  defaultValue: () => ({ every: Duration.seconds(1), stuckAfter: Duration.seconds(15) }),
})

/** Sets the browser's reconnect delay. */
const retry = Sse.encoder.write(new Sse.Retry({ duration: Duration.seconds(2), lastEventId: undefined }))

const event = (name: string, data: unknown) =>
  Sse.encoder.write({ _tag: "Event", event: name, id: undefined, data: JSON.stringify(data) })

/** What `/events` reads of the fleet. */
type FleetView = Pick<typeof Fleet.Service, "view" | "reports">

/** The curves of the chains that are followed here. */
const historyOf = ({ chains }: Status["Service"]) => ({
  every_ms: sampleEvery,
  chains: Object.fromEntries(
    chains
      .filter(({ followed }) => followed)
      .map(({ name, history }) => [name, { lag_s: history.lag, logs_per_s: history.rate }]),
  ),
})

/** Renders the events of one reader, without the entries that it has already received. */
const makeReader = (status: Status["Service"], { view, reports }: FleetView) => {
  const seen = new Map<string, number>()
  let first = true
  const render = (now: Report.Now, reported: ReadonlyMap<string, unknown>): string => {
    let text = first ? retry + event("history", historyOf(status)) : ""
    first = false
    text += event("status", Report.statusReport(status, now, view(), reported))
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
  return Effect.flatMap(reports, (reported) => Effect.map(Report.now, (now) => render(now, reported)))
}

/** The endless events of one reader; each is rendered on demand. */
export const events = (
  status: Status["Service"],
  fleet: FleetView,
  every: Duration.Duration,
): Stream.Stream<string> =>
  Stream.suspend(() => Stream.fromEffectSchedule(makeReader(status, fleet), Schedule.spaced(every)))

const headers = { "cache-control": "no-store", "x-accel-buffering": "no" }

/** Responds to a request with events, or with `full` when ten readers are connected. */
export const make = (
  status: Status["Service"],
  fleet: FleetView,
  full: HttpServerResponse.HttpServerResponse,
) => {
  let readers = 0
  const count = (change: 1 | -1) =>
    Effect.sync(() => {
      readers += change
      for (const { tail } of status.chains) tail.readers = readers
    })
  const acquireSlot = Effect.acquireRelease(count(1), () => count(-1))
  return Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    if (readers >= mostReaders) return full
    const contentType = "text/event-stream"
    if (request.method === "HEAD")
      return HttpServerResponse.empty({ status: 200, headers: { ...headers, "content-type": contentType } })
    const { every, stuckAfter } = yield* SseTiming
    // The request's scope closes when the connection ends, which releases the slot.
    yield* acquireSlot
    NodeHttpServerRequest.toIncomingMessage(request).socket.setTimeout(Duration.toMillis(stuckAfter))
    return HttpServerResponse.stream(Stream.encodeText(events(status, fleet, every)), {
      contentType,
      headers,
    })
  })
}
