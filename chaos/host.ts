/** Faults of the machine and the platform: the wall clock, and environment variables of others. */
import { Effect, Random, Schedule } from "effect"
import { chainId } from "../test/support/devnet.ts"
import { jsonFrom } from "../test/support/http.ts"
import type { Fault } from "./Fault.ts"
import { another } from "./Cluster.ts"
import type { Cluster } from "./Cluster.ts"

const hour = 3_600_000
const shifts = [hour, -hour, 24 * hour, -24 * hour]

/** Expects something within a few seconds. */
const expectSoon = (cluster: Cluster, expected: Effect.Effect<unknown, unknown>, otherwise: string) =>
  Effect.timeoutOrElse(expected, {
    duration: "10 seconds",
    orElse: () => Effect.sync(() => cluster.problems.push(otherwise)),
  })

/** The service notices a silent node and reconnects. */
const silenceNoticed = (cluster: Cluster) =>
  Effect.suspend(() => {
    const { ws } = cluster.ingestors[0]!
    const before = ws.accepted()
    ws.mute()
    return Effect.repeat(Effect.sync(ws.accepted), {
      until: (accepted) => accepted > before,
      schedule: Schedule.spaced("20 millis"),
    })
  })

const hoursOf = (millis: number) => `${millis / hour} h`

/** Durations are measured by the monotonic clock, so a shifted wall clock neither stalls the service nor hides a stall. */
const wallClock: Fault = {
  name: "the wall clock shifted by an hour and by a day, forward and back [G-170]",
  stores: ["sqlite", "redis"],
  times: 3,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const ingestor = cluster.ingestors[0]!
      const silentAt = yield* Random.nextIntBetween(0, shifts.length)
      for (const [i, shift] of (yield* Random.shuffle(shifts)).entries()) {
        yield* ingestor.shiftClock(shift)
        yield* expectSoon(
          cluster,
          another(cluster),
          `nothing was stored with the clock off by ${hoursOf(shift)}`,
        )
        if (i === silentAt || !cluster.brief) {
          yield* expectSoon(
            cluster,
            silenceNoticed(cluster),
            `silence was not noticed with the clock off by ${hoursOf(shift)}`,
          )
          // Without the cut there would be no recovery from the silence.
          ingestor.ws.cut()
        }
      }
      yield* ingestor.shiftClock(0)
    }),
}

/** The variables that Kubernetes and Docker set for services of this name. */
const linksOf = (service: string, port: number) => {
  const name = service.toUpperCase()
  const address = `tcp://10.0.0.1:${port}`
  return {
    [`${name}_SERVICE_HOST`]: "10.0.0.1",
    [`${name}_SERVICE_PORT`]: String(port),
    [`${name}_PORT`]: address,
    [`${name}_PORT_${port}_TCP`]: address,
    [`${name}_PORT_${port}_TCP_PROTO`]: "tcp",
    [`${name}_PORT_${port}_TCP_PORT`]: String(port),
    [`${name}_PORT_${port}_TCP_ADDR`]: "10.0.0.1",
  }
}

const links = { ...linksOf("redis", 6379), ...linksOf("kubernetes", 443), ...linksOf("devnet_ws", 8546) }

/** Where the service writes, and the epoch of the journal. */
const storeIdentity = (cluster: Cluster) =>
  Effect.gen(function* () {
    const { body } = yield* jsonFrom(yield* cluster.ingestors[0]!.process().port, "/status")
    const { epoch } = yield* cluster.store.stats(chainId)
    return JSON.stringify([
      (body as { readonly store: { readonly description: string } }).store.description,
      epoch,
    ])
  })

const platformVariables: Fault = {
  name: "restarted with the variables that Kubernetes sets for a service called redis [G-171]",
  stores: ["sqlite", "redis"],
  times: 2,
  inflict: (cluster) =>
    Effect.gen(function* () {
      const ingestor = cluster.ingestors[0]!
      const before = yield* storeIdentity(cluster)
      for (const variables of [links, {}, links]) {
        ingestor.variables = variables
        yield* Effect.andThen(ingestor.kill, ingestor.start)
        yield* expectSoon(cluster, another(cluster), "nothing was stored with the platform's variables")
        if ((yield* storeIdentity(cluster)) !== before) cluster.problems.push("the service writes elsewhere")
      }
      ingestor.variables = {}
    }),
}

export const hostFaults: ReadonlyArray<Fault> = [wallClock, platformVariables]
