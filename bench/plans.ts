/** What `npm run bench` measures: the figures by name, all of them and the quick ones. */
import { Effect } from "effect"
import { catchUp } from "./figures/catchUp.ts"
import { cold } from "./figures/cold.ts"
import { consumer } from "./figures/consumer.ts"
import { fleet } from "./fleet.ts"
import { latency } from "./figures/latency.ts"
import { loaded } from "./figures/loaded.ts"
import { memory } from "./figures/memory.ts"
import { compiled, quiet } from "./figures/quiet.ts"
import { reconnect, silence } from "./figures/reconnect.ts"
import { recovery } from "./figures/recovery.ts"
import { chains, filters } from "./figures/scaling.ts"
import { sqlite } from "./figures/sqlite.ts"
import { startup } from "./figures/startup.ts"
import { sustained } from "./figures/sustained.ts"
import type { Results } from "./results.ts"
import { load } from "./run.ts"
import { withoutBloom } from "./goals.ts"
import { median } from "./statistics.ts"
import { bare, checked } from "./subjects/bare.ts"
import { ceiling } from "./subjects/ceiling.ts"
import { ours } from "./subjects/ours.ts"
import { perEvent } from "./subjects/perEvent.ts"
import { script } from "./subjects/script.ts"
import { telemetry, unsampled } from "./subjects/telemetry.ts"

export type Figure = (results: Results) => Effect.Effect<void>

/** Subjects that write one event at a time get fewer events: their speed does not depend on the number. */
const slowPart = 0.05

const large =
  (blocks: number, rounds: number): Figure =>
  (results) =>
    Effect.gen(function* () {
      const all = load(1000, blocks)
      const few = load(1000, Math.ceil(blocks * slowPart))
      const speeds: Array<number> = []
      results.large = yield* sustained(
        [
          { subject: bare, load: all },
          { subject: checked, load: all },
          { subject: checked, load: load(1000, blocks, 1, false), name: withoutBloom(checked) },
          { subject: ours, load: all },
          { subject: ours, load: load(1000, blocks, 1, false), name: withoutBloom(ours) },
          { subject: telemetry, load: all },
          { subject: unsampled, load: all },
          { subject: perEvent, load: few },
          { subject: script, load: few },
        ],
        rounds,
        Effect.map(ceiling(all, blocks * 1000), (speed) => void speeds.push(speed)),
      )
      results.ceiling = median(speeds)
    })

/** A figure that has a field of its own in the results. */
const one =
  <Field extends keyof Results>(field: Field, effect: Effect.Effect<NonNullable<Results[Field]>>): Figure =>
  (results) =>
    Effect.map(effect, (value) => void Object.assign(results, { [field]: value }))

const small = (blocks: number, rounds: number): Figure =>
  one(
    "small",
    sustained(
      [
        { subject: bare, load: load(200, blocks, 4) },
        { subject: checked, load: load(200, blocks, 4) },
        { subject: checked, load: load(200, blocks, 4, false), name: withoutBloom(checked) },
        { subject: ours, load: load(200, blocks, 4) },
        { subject: ours, load: load(200, blocks, 4, false), name: withoutBloom(ours) },
      ],
      rounds,
    ),
  )

const loads = [1_000, 10_000, 50_000]
const sizes = [20, 200, 2_000]

export const full: Readonly<Record<string, Figure>> = {
  large: large(1000, 5),
  small: small(1000, 5),
  cold: one("cold", cold([ours, script, perEvent, bare], 30, 2)),
  sqlite: one("sqlite", sqlite(load(1000, 300))),
  latency: (results) =>
    Effect.andThen(
      one(
        "latencies",
        Effect.forEach(
          loads.flatMap((load) => sizes.map((logs) => ({ load, logs, seconds: 20 }))),
          (at) => latency(ours, at),
        ),
      )(results),
      one("latencyOfBare", latency(bare, { load: 10_000, logs: 200, seconds: 20 }))(results),
    ),
  startup: one("startup", startup(ours, 9)),
  quiet: one("quiet", quiet(ours, compiled, 60)),
  memory: one("memory", memory),
  catchUp: one("history", catchUp(ours, 40_000, 20, 3)),
  chains: (results) =>
    Effect.andThen(
      one("chains", chains([1, 4, 16, 64], 15, 5))(results),
      one("chainsOfBare", chains([1, 64], 15, 5, bare))(results),
    ),
  filters: one("filters", filters([1, 10, 100, 1_000, 10_000], 10, 1)),
  reconnect: one("reconnect", reconnect(ours, 2)),
  silence: one("silence", silence(ours)),
  recovery: one(
    "recovery",
    recovery(ours, [
      { seconds: 3, rounds: 9 },
      { seconds: 60, rounds: 3 },
    ]),
  ),
  loaded: one("loaded", loaded(3)),
  consumer: one("consumer", consumer(3)),
  fleet: one("fleet", fleet(20, 5)),
}

export const quick: Readonly<Record<string, Figure>> = {
  large: large(250, 1),
  small: small(200, 1),
  latency: one(
    "latencies",
    Effect.map(latency(ours, { load: 10_000, logs: 200, seconds: 5 }), (one) => [one]),
  ),
  startup: one("startup", startup(ours, 1)),
}
