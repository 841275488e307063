/** A server or a link that accepts less at once than a push holds: the service must send smaller pushes. */
import { Effect, Random } from "effect"
import { unimpaired } from "../test/support/Pipe.ts"
import type { Tap } from "../test/support/TcpProxy.ts"
import type { Fault } from "./Fault.ts"
import { alone, caughtUp } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"

/** A block of several pushes, in transactions of a thousand logs. Waits until it is stored. */
const bigBlock = (cluster: Cluster, thousands: number) =>
  alone(cluster)(
    Effect.gen(function* () {
      yield* cluster.node.block(...Array.from({ length: thousands }, () => 1000), 500)
      yield* caughtUp(cluster)
    }),
  )

/**
 * Refuses large messages as Redis does: with an error above `proto-max-bulk-len`, or without one above
 * `client-query-buffer-limit`, which Redis does not allow to be set below a megabyte.
 */
const noLarger = (bytes: number, silent: boolean): { readonly tap: Tap; readonly refused: () => number } => {
  let refused = 0
  return {
    refused: () => refused,
    tap: (message, from, link) => {
      if (from === "target" || message.length <= bytes) return message
      refused++
      if (!silent) link.inject("client", Buffer.from("-ERR Protocol error: invalid bulk length\r\n"))
      // After the error was sent.
      setImmediate(link.cut)
      return undefined
    },
  }
}

export const tooLarge: Fault = {
  name: "Redis: refuses big pushes (proto-max-bulk-len, client-query-buffer-limit) [G-165]",
  stores: ["redis"],
  times: 4,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const { redis } = cluster.ingestors[0]!
      // A thousand logs are about 400 kB here.
      const kilobytes = cluster.brief ? 200 : yield* Random.nextIntBetween(32, 200)
      const { tap, refused } = noLarger(kilobytes * 1024, yield* Random.nextBoolean)
      redis!.tap(tap)
      yield* bigBlock(cluster, cluster.brief ? 2 : 5)
      redis!.tap(undefined)
      if (refused() === 0) cluster.problems.push("no push was refused for its size")
    }),
}

const slowLink: Fault = {
  name: "Redis: behind a link that is too slow for a big push",
  stores: ["redis"],
  times: 2,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const { redis } = cluster.ingestors[0]!
      redis!.setConditions({ ...unimpaired, rate: yield* Random.nextIntBetween(30_000, 50_000) })
      yield* bigBlock(cluster, 3)
      redis!.setConditions(unimpaired)
    }),
}

export const limitFaults: ReadonlyArray<Fault> = [tooLarge, slowLink]
