/** A connection to a FakeNode under the test clock, without sockets. */
import { it } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import * as WebSocketConnection from "../../src/endpoint/WebSocketConnection.ts"
import type { Connection } from "../../src/endpoint/Connection.ts"
import type { EndpointError } from "../../src/endpoint/EndpointError.ts"
import { FakeChain } from "./FakeChain.ts"
import { FakeNode, layerTransport } from "./FakeNode.ts"

export interface World {
  readonly chain: FakeChain
  readonly node: FakeNode
  readonly connection: Connection
}

/** Runs an effect while the test clock advances, and returns its result. */
export const soon = <A, E, R>(effect: Effect.Effect<A, E, R>, within: Duration.Input = "1 second") =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    yield* TestClock.adjust(within)
    return yield* Fiber.join(fiber)
  })

/** Defines a test with a new chain, its node and a connection to it. */
export const connected = (
  title: string,
  body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>,
): void =>
  it.effect(title, () => {
    const chain = new FakeChain()
    const node = new FakeNode(chain)
    const endpoint = { name: "fake", url: Redacted.make("ws://fake"), keyless: false }
    return Effect.gen(function* () {
      const options = { requestTimeout: Duration.seconds(10), wsMaxPayload: 64 * 1024 * 1024 }
      yield* body({
        chain,
        node,
        connection: yield* soon(WebSocketConnection.connect({ id: chain.id }, endpoint, options)),
      })
    }).pipe(Effect.provide(layerTransport({ fake: node })))
  })

/** The error with which a connection has ended, if it has. */
export const endOf = (connection: Connection): Effect.Effect<EndpointError | undefined> =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(Effect.flip(connection.ended), { startImmediately: true })
    yield* TestClock.adjust(0)
    const exit = fiber.pollUnsafe()
    yield* Fiber.interrupt(fiber)
    return exit?._tag === "Success" ? exit.value : undefined
  })
