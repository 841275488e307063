/** Faults of the network, on the leg to the node and on the leg to Redis. */
import { Effect, Random } from "effect"
import type { Tap, TcpProxy } from "../test/support/TcpProxy.ts"
import { frameHead, isTextFrame, textOf, withByte } from "../test/support/wire.ts"
import type { Fault } from "./Fault.ts"
import { errorsOf, untilCounted } from "./errors.ts"
import { unimpaired } from "../test/support/Pipe.ts"
import type { Cluster } from "./Cluster.ts"

/** Lasts for a random number of seconds; its end is the end of the fault. */
const lastFor = (shortest: number, longest: number) =>
  Effect.flatMap(Random.nextBetween(shortest, longest), (seconds) => Effect.sleep(seconds * 1000))

type Leg = "ws" | "redis"

const legOf = (cluster: Cluster, leg: Leg): TcpProxy => {
  const proxy = cluster.ingestors[0]![leg]
  if (proxy === undefined) throw new Error(`there is no leg ${leg}`)
  return proxy
}

/** Installs a tap until it calls `done`. */
const tapped = (proxy: TcpProxy, make: (done: () => undefined) => Tap) =>
  Effect.callback<void>((resume) => {
    proxy.tap(
      make(() => {
        proxy.tap(undefined)
        resume(Effect.void)
        return undefined
      }),
    )
    return Effect.sync(() => proxy.tap(undefined))
  })

/** Corrupts a message in a detectable way: a corruption that passes TCP's checksum unnoticed could not be detected. */
const corrupt = (message: Buffer, leg: Leg, random: () => number): Buffer => {
  const copy = Buffer.from(message)
  // No frame and no reply begins with this byte, and no text contains it.
  if (leg === "redis" || random() < 0.3) copy[0] = 0xff
  else if (random() < 0.5) return withByte(message, random(), 0xff)
  // The first byte, so that the corruption does not fall into a field that is never read.
  else return withByte(message, 0, "!".charCodeAt(0))
  return copy
}

/** Inflicts harm, and waits until it is noticed: by an error on the node leg, by a reconnect on the Redis leg. */
const untilNoticed = (cluster: Cluster, proxy: TcpProxy, leg: Leg, harm: Effect.Effect<void>) => {
  const { process } = cluster.ingestors[0]!
  return untilCounted(
    harm,
    leg === "ws"
      ? Effect.suspend(() => errorsOf(process(), "devnet", "malformed", "connection"))
      : Effect.sync(proxy.accepted),
  )
}

/** Above every limit: that of WS_MAX_PAYLOAD, and that of a Redis reply. */
const enormous = 3 * 1024 ** 3

const harm: Readonly<
  Record<string, (proxy: TcpProxy, leg: Leg, cluster: Cluster) => Effect.Effect<void, Error>>
> = {
  cut: (proxy) =>
    Effect.gen(function* () {
      const share = yield* Random.next
      if (share < 0.3) return proxy.cut()
      // In the middle of an answer.
      return yield* tapped(proxy, (done) => (message, from, link) => {
        if (from === "client") return message
        link.inject("client", message.subarray(0, message.length * share))
        link.cut()
        return done()
      })
    }),
  "half-open [G-083]": (proxy) => Effect.andThen(Effect.sync(proxy.mute), lastFor(1, 2)),
  latency: (proxy) =>
    Effect.gen(function* () {
      proxy.setConditions({ ...unimpaired, latency: yield* Random.nextIntBetween(100, 600) })
      yield* lastFor(2, 4)
      proxy.setConditions(unimpaired)
    }),
  jitter: (proxy) =>
    Effect.gen(function* () {
      proxy.setConditions({ ...unimpaired, latency: 5, jitter: yield* Random.nextIntBetween(200, 800) })
      yield* lastFor(2, 4)
      proxy.setConditions(unimpaired)
    }),
  "slow drip [G-084]": (proxy) =>
    Effect.gen(function* () {
      proxy.setConditions({ ...unimpaired, rate: yield* Random.nextIntBetween(200, 3000) })
      yield* lastFor(3, 5)
      proxy.setConditions(unimpaired)
    }),
  "lost reply, then RST [G-085]": (proxy, leg) =>
    tapped(proxy, (done) => {
      const isReply = (message: Buffer) =>
        leg === "redis" || (isTextFrame(message) && textOf(message).includes('"result":'))
      return (message, from, link) => {
        if (from === "client" || !isReply(message)) return message
        link.reset()
        return done()
      }
    }),
  "corrupted frame [G-086]": (proxy, leg, cluster) =>
    Effect.flatMap(Random.Random, ({ nextDoubleUnsafe: random }) =>
      untilNoticed(
        cluster,
        proxy,
        leg,
        tapped(proxy, (done) => (message, from) => {
          if (from === "client" || (leg === "ws" && !isTextFrame(message))) return message
          done()
          return corrupt(message, leg, random)
        }),
      ),
    ),
  "oversized frame [G-087]": (proxy, leg, cluster) =>
    untilNoticed(
      cluster,
      proxy,
      leg,
      tapped(proxy, (done) => (message, from, link) => {
        if (from === "client" || (leg === "ws" && !isTextFrame(message))) return message
        link.inject("client", leg === "ws" ? frameHead(enormous) : Buffer.from(`$${enormous}\r\n`))
        done()
        return message
      }),
    ),
}

const faultsOf = (leg: Leg, where: string, stores: Fault["stores"]): ReadonlyArray<Fault> =>
  Object.entries(harm).map(([name, inflict]) => ({
    name: `${where}: ${name}`,
    stores,
    times: 4,
    inflict: (cluster) => inflict(legOf(cluster, leg), leg, cluster),
  }))

export const nodeLeg = faultsOf("ws", "leg to the node", ["sqlite", "redis"])
export const redisLeg = faultsOf("redis", "leg to Redis", ["redis"])
