/** Faults of the network, on the leg to the node and on the leg to Redis. */
import { Effect, Random } from "effect"
import type { Tap, TcpProxy } from "../test/support/TcpProxy.ts"
import { frameHead, isTextFrame, textOf, withByte } from "../test/support/wire.ts"
import type { Fault } from "./Campaign.ts"
import { errorsOf, untilCounted } from "./errors.ts"
import { unimpaired } from "../test/support/Pipe.ts"
import type { Rig } from "./Rig.ts"

/** Lasts a while, seconds; the end is the fault's end. */
const lasting = (shortest: number, longest: number) =>
  Effect.flatMap(Random.nextBetween(shortest, longest), (seconds) => Effect.sleep(seconds * 1000))

type Leg = "ws" | "redis"

const legOf = (rig: Rig, leg: Leg): TcpProxy => {
  const proxy = rig.ingestors[0]![leg]
  if (proxy === undefined) throw new Error(`there is no leg ${leg}`)
  return proxy
}

/** Installs a tap until it says that it is done. */
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

/** What can be wrong with a byte so that it can be seen: what TCP's own sums let through unseen, nobody finds. */
const garble = (message: Buffer, leg: Leg, random: () => number): Buffer => {
  const copy = Buffer.from(message)
  // No frame and no reply begins so, and no text contains it.
  if (leg === "redis" || random() < 0.3) copy[0] = 0xff
  else if (random() < 0.5) return withByte(message, random(), 0xff)
  // Where a field begins that nobody reads, no harm would be done.
  else return withByte(message, 0, "!".charCodeAt(0))
  return copy
}

/** Does harm, and waits until it is noticed: an error is counted; on the leg to Redis perhaps of no chain, but dialled again. */
const noticed = (rig: Rig, proxy: TcpProxy, leg: Leg, harm: Effect.Effect<void>) => {
  const { process } = rig.ingestors[0]!
  return untilCounted(
    harm,
    leg === "ws"
      ? Effect.suspend(() => errorsOf(process(), "devnet", "malformed", "connection"))
      : Effect.sync(proxy.accepted),
  )
}

/** More than any limit: of WS_MAX_PAYLOAD, and of what Redis may say. */
const enormous = 3 * 1024 ** 3

const harm: Readonly<Record<string, (proxy: TcpProxy, leg: Leg, rig: Rig) => Effect.Effect<void, Error>>> = {
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
  "half-open [G-083]": (proxy) => Effect.andThen(Effect.sync(proxy.mute), lasting(1, 2)),
  latency: (proxy) =>
    Effect.gen(function* () {
      proxy.setConditions({ ...unimpaired, latency: yield* Random.nextIntBetween(100, 600) })
      yield* lasting(2, 4)
      proxy.setConditions(unimpaired)
    }),
  jitter: (proxy) =>
    Effect.gen(function* () {
      proxy.setConditions({ ...unimpaired, latency: 5, jitter: yield* Random.nextIntBetween(200, 800) })
      yield* lasting(2, 4)
      proxy.setConditions(unimpaired)
    }),
  "slow drip [G-084]": (proxy) =>
    Effect.gen(function* () {
      proxy.setConditions({ ...unimpaired, rate: yield* Random.nextIntBetween(200, 3000) })
      yield* lasting(3, 5)
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
  "corrupted frame [G-086]": (proxy, leg, rig) =>
    Effect.flatMap(Random.Random, ({ nextDoubleUnsafe: random }) =>
      noticed(
        rig,
        proxy,
        leg,
        tapped(proxy, (done) => (message, from) => {
          if (from === "client" || (leg === "ws" && !isTextFrame(message))) return message
          done()
          return garble(message, leg, random)
        }),
      ),
    ),
  "oversized frame [G-087]": (proxy, leg, rig) =>
    noticed(
      rig,
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
    inflict: (rig) => inflict(legOf(rig, leg), leg, rig),
  }))

export const nodeLeg = faultsOf("ws", "leg to the node", ["sqlite", "redis"])
export const redisLeg = faultsOf("redis", "leg to Redis", ["redis"])
