/** A reader of server-sent events that can stop reading without disconnecting. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { request } from "node:http"
import type { IncomingHttpHeaders, IncomingMessage } from "node:http"

export interface Event {
  readonly name: string
  readonly data: never
}

export interface Reader {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** The events received so far. */
  readonly events: ReadonlyArray<Event>
  /** The bytes received so far. */
  readonly bytes: () => number
  /** Waits for the first event that matches. */
  readonly sees: (wanted: (event: Event) => boolean) => Effect.Effect<Event>
  readonly pause: () => void
  readonly resume: () => void
  readonly leave: () => void
  /** Waits until the connection has ended. */
  readonly gone: Effect.Effect<void>
}

const parse = (text: string): Event => {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(text)?.[1] ?? ""
  return { name: field("event"), data: JSON.parse(field("data") || "null") as never }
}

const wrap = (response: IncomingMessage): Reader => {
  const events: Array<Event> = []
  const waiting = new Set<() => void>()
  let rest = ""
  let bytes = 0
  let ended = false
  const notify = () => {
    for (const check of waiting) check()
  }
  response.on("data", (data: Buffer) => {
    bytes += data.length
    const parts = (rest + data.toString()).split("\n\n")
    rest = parts.pop()!
    events.push(...parts.map(parse))
    notify()
  })
  // A connection cut by the server is an error here, and the end of the events for the reader.
  response.on("error", () => {})
  response.on("close", () => {
    ended = true
    notify()
  })
  const waitFor = <A>(read: () => Effect.Effect<A> | undefined) =>
    Effect.callback<A>((resume) => {
      const check = () => {
        const found = read()
        if (found === undefined) return
        waiting.delete(check)
        resume(found)
      }
      waiting.add(check)
      check()
      return Effect.sync(() => void waiting.delete(check))
    })
  return {
    status: response.statusCode!,
    headers: response.headers,
    events,
    bytes: () => bytes,
    sees: (wanted) =>
      waitFor(() => {
        const found = events.find(wanted)
        if (found) return Effect.succeed(found)
        return ended ? Effect.die(new Error("it ended before that")) : undefined
      }),
    pause: () => void response.pause(),
    resume: () => void response.resume(),
    leave: () => void response.destroy(),
    gone: waitFor(() => (ended ? Effect.void : undefined)),
  }
}

/** Requests `/events`; returns once the response headers have arrived. */
export const readEvents = (
  port: number,
  headers: Record<string, string> = {},
): Effect.Effect<Reader, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Reader, Error>((resume) => {
      const sent = request({ port, path: "/events", host: "127.0.0.1", agent: false, headers })
      sent.on("error", (error) => resume(Effect.fail(error)))
      sent.on("response", (response) => resume(Effect.succeed(wrap(response))))
      sent.end()
      return Effect.sync(() => sent.destroy())
    }),
    (reader) => Effect.sync(reader.leave),
  )
