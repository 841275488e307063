/** All figures. One that was not measured in this run is missing. */
import type { CatchUp } from "./figures/catchUp.ts"
import type { Cold } from "./figures/cold.ts"
import type { Consumer } from "./figures/consumer.ts"
import type { Latency } from "./figures/latency.ts"
import type { Loaded } from "./figures/loaded.ts"
import type { Memory } from "./figures/memory.ts"
import type { Quiet } from "./figures/quiet.ts"
import type { Reconnect, Silence } from "./figures/reconnect.ts"
import type { Recovery } from "./figures/recovery.ts"
import type { Fleet } from "./fleet.ts"
import type { Point } from "./figures/scaling.ts"
import type { Startup } from "./figures/startup.ts"
import type { Sustained } from "./figures/sustained.ts"
import type { Goal } from "./goals.ts"
import type { Cost } from "./run.ts"

export interface Results {
  readonly at: string
  readonly commit: string
  readonly machine: string
  readonly mode: "full" | "quick"
  /** Raw pipelined XADD, events a second. */
  ceiling?: number
  /** Blocks of 1 000 logs, with bloom equality and with zero blooms in the headers. */
  large?: ReadonlyArray<Sustained>
  /** The same for blocks of 200 logs on four chains. */
  small?: ReadonlyArray<Sustained>
  loaded?: Loaded
  cold?: ReadonlyArray<Cold>
  sqlite?: Cost
  latencies?: ReadonlyArray<Latency>
  /** The bare loop at 10 000 events a second in blocks of 200. */
  latencyOfBare?: Latency
  history?: CatchUp
  startup?: Startup
  reconnect?: Reconnect
  silence?: ReadonlyArray<Silence>
  recovery?: Recovery
  consumer?: Consumer
  quiet?: Quiet
  memory?: Memory
  chains?: ReadonlyArray<Point>
  chainsOfBare?: ReadonlyArray<Point>
  filters?: ReadonlyArray<Point>
  fleet?: Fleet
  /** MB a minute over the soak. */
  slope?: number
  goals?: ReadonlyArray<Goal>
}
