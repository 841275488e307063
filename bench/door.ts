/**
 * A door in front of the provider: a TCP port whose connections are passed on to it, until the door is closed, refuses, or goes
 * silent. So one provider serves chains whose connections fail at different moments.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { connect, createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import * as RedisServer from "../test/support/RedisServer.ts"
import { now } from "./child.ts"

/** `closed`: nothing listens. `refusing`: each connection is reset as soon as it is made, which shows when clients try. */
export type Unreachable = "closed" | "refusing"

export interface Door {
  readonly port: number
  /** When clients have connected, the refused ones included (milliseconds, the clock of `now`). */
  readonly attempts: ReadonlyArray<number>
  /** Cuts all connections, and lets no other in. */
  readonly shut: (how: Unreachable) => Promise<void>
  readonly open: () => Promise<void>
  /** Passes nothing on for the connections that exist, and keeps them open. New ones work. */
  readonly silence: () => void
}

type Pair = readonly [client: Socket, provider: Socket]

/** Passes bytes in both directions; where one side ends, so does the other. */
const join = (pair: Pair, onEnd: () => void): void => {
  for (const [from, to] of [pair, pair.toReversed() as unknown as Pair]) {
    from.setNoDelay(true).on("error", () => {})
    from.on("close", () => {
      to.destroy()
      onEnd()
    })
    from.pipe(to)
  }
}

const make = (port: number, providerPort: number) => {
  const attempts: Array<number> = []
  const pairs = new Set<Pair>()
  let isRefusing = false
  const server = createServer((client) => {
    attempts.push(now())
    if (isRefusing) return void client.resetAndDestroy()
    const pair: Pair = [client, connect(providerPort, "127.0.0.1")]
    pairs.add(pair)
    join(pair, () => pairs.delete(pair))
  })
  const listen = () => new Promise<void>((listening) => void server.listen(port, "127.0.0.1", listening))
  const door: Door = {
    get port() {
      return (server.address() as AddressInfo).port
    },
    attempts,
    shut: async (how) => {
      isRefusing = how === "refusing"
      const closed = isRefusing
        ? Promise.resolve()
        : new Promise<unknown>((resolve) => void server.close(resolve))
      for (const [client] of pairs) client.resetAndDestroy()
      await closed
    },
    open: async () => {
      isRefusing = false
      if (!server.listening) await listen()
    },
    silence: () => {
      for (const [client, provider] of pairs) {
        provider.unpipe(client).resume()
        client.unpipe(provider).resume()
      }
    },
  }
  const end = () => {
    for (const [client] of pairs) client.destroy()
    server.close()
  }
  return { door, listen, end }
}

export const open = (providerPort: number): Effect.Effect<Door, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { door, listen, end } = make(yield* RedisServer.freePort, providerPort)
    yield* Effect.acquireRelease(Effect.promise(listen), () => Effect.sync(end))
    return door
  })
