/**
 * A TCP proxy that injects network faults.
 *
 * Cuts and resets end connections. `setConditions` delays and throttles them. `mute` leaves them open and silent, like a peer
 * that vanished without closing. A `tap` receives everything that passes, message by message if the proxy has a cutter for
 * the protocol (`wire.ts`), and may drop it, change it, or end the connection there.
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
  /** Sends data to a side that the other side did not send. */
  readonly inject: (to: Side, data: Buffer) => void
  /** Closes both sides. */
  readonly cut: () => void
  /** Closes both sides by RST: data in transit is lost. */
  readonly reset: () => void
}

/** Receives the data of one side. Its result is forwarded to the other side; `undefined` drops the data. */
export type Tap = (data: Buffer, from: Side, link: Link) => Buffer | undefined

/** Splits one direction of a connection into messages. Incomplete data is kept. */
export interface Cutter {
  readonly take: (data: Buffer) => ReadonlyArray<Buffer>
}

export type Cutters = Readonly<Partial<Record<Side, () => Cutter>>>

export interface TcpProxy {
  readonly port: number
  /** Number of accepted connections. */
  readonly accepted: () => number
  /** Cuts every connection. */
  readonly cut: () => void
  /** Resets every connection. */
  readonly reset: () => void
  /** Cuts the current or the next connection after this many more bytes from the target. */
  readonly cutAfter: (bytes: number) => void
  /** Drops all further data of the current connections, including their end. New connections work. */
  readonly mute: () => void
  /** Whether new connections are closed at once. */
  readonly refuse: (refused: boolean) => void
  /** Sets the target of new connections. */
  readonly retarget: (port: number) => void
  readonly setConditions: (conditions: Conditions) => void
  readonly tap: (tap: Tap | undefined) => void
}

/** The internal state of a link. */
interface Pair extends Link {
  readonly setConditions: (conditions: Conditions) => void
  muted: boolean
}

const whole = (): Cutter => ({ take: (data) => [data] })

class Proxy {
  readonly pairs = new Set<Pair>()
  accepted = 0
  left = Infinity
  refused = false
  conditions: Conditions = unimpaired
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
      inject: (to, data) => pipes[to].put(data),
      cut: () => end((socket) => socket.destroy()),
      reset: () => end((socket) => socket.resetAndDestroy()),
      setConditions: (conditions) => {
        pipes.client.setConditions(conditions)
        pipes.target.setConditions(conditions)
      },
    }
    this.pairs.add(pair)
    pair.setConditions(this.conditions)
    const cutters = {
      client: this.#cutters.client?.() ?? whole(),
      target: this.#cutters.target?.() ?? whole(),
    }
    const carry = (from: Side, to: Side) => {
      const onClosed = () => {
        if (!pair.muted) pair.cut()
      }
      sockets[from].on("error", onClosed)
      sockets[from].on("close", onClosed)
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
        setConditions: (conditions: Conditions) => {
          proxy.conditions = conditions
          for (const pair of proxy.pairs) pair.setConditions(conditions)
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
