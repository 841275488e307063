/** What the machine and the platform do to the service: its wall clock, and variables that it did not ask for. */
import { Effect, Random, Schedule } from "effect"
import { chainId } from "../test/support/devnet.ts"
import { jsonFrom } from "../test/support/http.ts"
import type { Fault } from "./Campaign.ts"
import { another } from "./Rig.ts"
import type { Rig } from "./Rig.ts"

const hour = 3_600_000
const shifts = [hour, -hour, 24 * hour, -24 * hour]

/** Expects something within a few seconds. */
const soon = (rig: Rig, expected: Effect.Effect<unknown, unknown>, otherwise: string) =>
  Effect.timeoutOrElse(expected, {
    duration: "10 seconds",
    orElse: () => Effect.sync(() => rig.problems.push(otherwise)),
  })

/** The node's silence is noticed: it is connected to again. */
const silenceNoticed = (rig: Rig) =>
  Effect.suspend(() => {
    const { ws } = rig.ingestors[0]!
    const before = ws.accepted()
    ws.mute()
    return Effect.repeat(Effect.sync(ws.accepted), {
      until: (accepted) => accepted > before,
      schedule: Schedule.spaced("20 millis"),
    })
  })

const told = (millis: number) => `${millis / hour} h`

/** Time that has passed is measured by another clock: nothing stands still, and nothing goes unnoticed. */
const wallClock: Fault = {
  name: "the wall clock shifted by an hour and by a day, forward and back [G-170]",
  stores: ["sqlite", "redis"],
  times: 3,
  inflict: (rig) =>
    Effect.gen(function* () {
      const ingestor = rig.ingestors[0]!
      const silentAt = yield* Random.nextIntBetween(0, shifts.length)
      for (const [i, shift] of (yield* Random.shuffle(shifts)).entries()) {
        yield* ingestor.shiftClock(shift)
        yield* soon(rig, another(rig), `nothing was stored with the clock off by ${told(shift)}`)
        if (i === silentAt || !rig.brief) {
          yield* soon(
            rig,
            silenceNoticed(rig),
            `silence was not noticed with the clock off by ${told(shift)}`,
          )
          // Else there is no recovery when it is still silent.
          ingestor.ws.cut()
        }
      }
      yield* ingestor.shiftClock(0)
    }),
}

/** What Kubernetes and Docker set for services that are called so. */
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

/** What the service says of where it writes, and which epoch the journal is of. */
const whereabouts = (rig: Rig) =>
  Effect.gen(function* () {
    const { body } = yield* jsonFrom(yield* rig.ingestors[0]!.process().port, "/status")
    const { epoch } = yield* rig.store.stats(chainId)
    return JSON.stringify([
      (body as { readonly store: { readonly description: string } }).store.description,
      epoch,
    ])
  })

const platformVariables: Fault = {
  name: "restarted with the variables that Kubernetes sets for a service called redis [G-171]",
  stores: ["sqlite", "redis"],
  times: 2,
  inflict: (rig) =>
    Effect.gen(function* () {
      const ingestor = rig.ingestors[0]!
      const before = yield* whereabouts(rig)
      for (const variables of [links, {}, links]) {
        ingestor.variables = variables
        yield* Effect.andThen(ingestor.kill, ingestor.start)
        yield* soon(rig, another(rig), "nothing was stored with the platform's variables")
        if ((yield* whereabouts(rig)) !== before) rig.problems.push("it writes elsewhere")
      }
      ingestor.variables = {}
    }),
}

export const hostFaults: ReadonlyArray<Fault> = [wallClock, platformVariables]
