/**
 * A TCP proxy that hurts the connections it carries.
 *
 * Cuts and resets end connections. `weather` makes them slow. `mute` leaves them open and silent, as when the other side
 * is gone without a word. A `tap` sees everything that passes, message by message where the proxy is told how a message
 * ends (`wire.ts`), and may hold it back, change it, or end the connection there.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { connect, createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import { unimpaired, Pipe } from "./Pipe.ts"
import type { Conditions } from "./Pipe.ts"

export type Side = "client" | "target"

/** One connection through the proxy. */
export interface Link {
  /** Says something to a side that the other did not say. */
  readonly say: (to: Side, data: Buffer) => void
  /** Closes both sides. */
  readonly cut: () => void
  /** The same by RST: what is on its way to either side is lost. */
  readonly reset: () => void
}

/** Sees what a side said. What it answers goes on to the other side; nothing does for `undefined`. */
export type Tap = (data: Buffer, from: Side, link: Link) => Buffer | undefined

/** Cuts one direction of a connection into messages. What is not complete yet waits. */
export interface Cutter {
  readonly take: (data: Buffer) => ReadonlyArray<Buffer>
}

export type Cutters = Readonly<Partial<Record<Side, () => Cutter>>>

export interface TcpProxy {
  readonly port: number
  /** Connections so far. */
  readonly accepted: () => number
  /** Cuts every connection. */
  readonly cut: () => void
  /** Resets every connection. */
  readonly reset: () => void
  /** Cuts the next connection, or the present one, after so many more bytes from the target. */
  readonly cutAfter: (bytes: number) => void
  /** Swallows what the present connections say from now on, the end included. New connections work. */
  readonly mute: () => void
  /** Closes new connections at once, or not any more. */
  readonly refuse: (refused: boolean) => void
  /** Where new connections lead. */
  readonly retarget: (port: number) => void
  readonly weather: (weather: Conditions) => void
  readonly tap: (tap: Tap | undefined) => void
}

/** A link as the proxy sees it. */
interface Pair extends Link {
  readonly setConditions: (weather: Conditions) => void
  muted: boolean
}

const whole = (): Cutter => ({ take: (data) => [data] })

class Proxy {
  readonly pairs = new Set<Pair>()
  accepted = 0
  left = Infinity
  refused = false
  weather: Conditions = unimpaired
  tap: Tap | undefined
  target: number
  readonly #cutters: Cutters
  readonly #random: () => number

  constructor(target: number, cutters: Cutters, random: () => number) {
    this.target = target
    this.#cutters = cutters
    this.#random = random
  }

  accept(client: Socket): void {
    this.accepted++
    client.on("error", () => {})
    if (this.refused) return void client.destroy()
    const target = connect(this.target, "127.0.0.1")
    const sockets = { client, target }
    const pipes = { client: new Pipe(client, this.#random), target: new Pipe(target, this.#random) }
    const end = (how: (socket: Socket) => void) => {
      this.pairs.delete(pair)
      for (const side of ["client", "target"] as const) {
        pipes[side].close()
        how(sockets[side])
      }
    }
    const pair: Pair = {
      muted: false,
      say: (to, data) => pipes[to].put(data),
      cut: () => end((socket) => socket.destroy()),
      reset: () => end((socket) => socket.resetAndDestroy()),
      setConditions: (weather) => {
        pipes.client.setConditions(weather)
        pipes.target.setConditions(weather)
      },
    }
    this.pairs.add(pair)
    pair.setConditions(this.weather)
    const cutters = {
      client: this.#cutters.client?.() ?? whole(),
      target: this.#cutters.target?.() ?? whole(),
    }
    const carry = (from: Side, to: Side) => {
      const gone = () => {
        if (!pair.muted) pair.cut()
      }
      sockets[from].on("error", gone)
      sockets[from].on("close", gone)
      sockets[from].on("data", (data: Buffer) => {
        for (const message of cutters[from].take(data)) {
          const passed = pair.muted ? undefined : this.tap ? this.tap(message, from, pair) : message
          if (passed === undefined || !this.pairs.has(pair)) continue
          if (from === "client" || passed.length <= this.left) {
            if (from === "target") this.left -= passed.length
            pipes[to].put(passed)
            continue
          }
          const part = passed.subarray(0, this.left)
          this.left = Infinity
          client.write(part, () => pair.cut())
        }
      })
    }
    carry("client", "target")
    carry("target", "client")
  }
}

/** A proxy in front of a local port, for as long as the scope lives. `random` decides about jitter. */
export const start = (
  target: number,
  options: { readonly cutters?: Cutters; readonly random?: () => number } = {},
): Effect.Effect<TcpProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<TcpProxy & { readonly close: () => void }>((resume) => {
      const proxy = new Proxy(target, options.cutters ?? {}, options.random ?? Math.random)
      const each = (act: (pair: Pair) => void) => () => {
        for (const pair of proxy.pairs) act(pair)
      }
      const cut = each((pair) => pair.cut())
      const server = createServer((client) => proxy.accept(client))
      const handle = {
        accepted: () => proxy.accepted,
        cut,
        reset: each((pair) => pair.reset()),
        cutAfter: (bytes: number) => void (proxy.left = bytes),
        mute: each((pair) => void (pair.muted = true)),
        refuse: (refused: boolean) => void (proxy.refused = refused),
        retarget: (port: number) => void (proxy.target = port),
        weather: (weather: Conditions) => {
          proxy.weather = weather
          for (const pair of proxy.pairs) pair.setConditions(weather)
        },
        tap: (tap: Tap | undefined) => void (proxy.tap = tap),
        close: () => {
          server.close()
          cut()
        },
      }
      server.listen(0, "127.0.0.1", () =>
        resume(Effect.succeed({ ...handle, port: (server.address() as AddressInfo).port })),
      )
    }),
    ({ close }) => Effect.sync(close),
  )
