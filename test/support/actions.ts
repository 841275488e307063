/** What happens in a run of the simulation: the setting, and one action after the other. */
import { Schema } from "effect"
import { callLimits } from "../../src/store/Journal.ts"
import type { CallLimits } from "../../src/store/Journal.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Sizes = Schema.Array(between(0, 200)).check(Schema.isMinLength(1), Schema.isMaxLength(3))
const Few = Schema.Array(between(0, 12)).check(Schema.isMinLength(1), Schema.isMaxLength(8))
const Which = between(0, 1)

/** For how long a node behaves so. */
const seconds = between(1, 30)

const often = <S>(schema: S): ReadonlyArray<S> => [schema, schema, schema, schema]

/** Refusals in words that say nothing about what is wrong, or something else. */
const Words = Schema.Literals([
  "the ledger is not in the mood",
  "the header does not exist (hash 0x00)",
  "cannot query unfinalized data",
  "could not find block for height",
  "project ID request rate exceeded",
])

/** One thing that happens. What everything else is measured by, new blocks and forks, happens most. */
export const Action = Schema.Union([
  // -- the chain
  ...often(Schema.TaggedStruct("Extend", { logs: Sizes })),
  ...often(Schema.TaggedStruct("Jump", { logs: Few })),
  ...often(Schema.TaggedStruct("Fork", { depth: between(1, 64), longer: between(0, 3) })),
  Schema.TaggedStruct("Rollback", { depth: between(1, 64) }),
  Schema.TaggedStruct("NullHeights", { heights: between(1, 3), logs: between(0, 12) }),
  // -- one node is on a fork of its own for a while, or until blocks are final that differ
  ...often(
    Schema.TaggedStruct("Split", { node: Which, depth: between(1, 40), longer: between(-3, 3), seconds }),
  ),
  Schema.TaggedStruct("Divide", { node: Which, depth: between(1, 12), logs: between(0, 3) }),
  // -- what is announced
  Schema.TaggedStruct("Repeat", { node: Which, back: between(0, 9) }),
  Schema.TaggedStruct("Reorder", { node: Which }),
  Schema.TaggedStruct("Silence", { node: Which, seconds }),
  Schema.TaggedStruct("Blooms", {
    node: Which,
    are: Schema.Literals(["zero", "full", "missing"]),
    where: Schema.Literals(["announced", "fetched", "everywhere"]),
    seconds,
  }),
  // -- connections
  Schema.TaggedStruct("Drop", { node: Which, when: Schema.Literals(["now", "before", "during", "after"]) }),
  Schema.TaggedStruct("Freeze", { node: Which, seconds }),
  Schema.TaggedStruct("Down", { node: Which, seconds }),
  Schema.TaggedStruct("ReturnBehind", { node: Which, blocks: between(1, 8), seconds }),
  // -- answers
  Schema.TaggedStruct("Lag", { node: Which, blocks: between(1, 8), seconds }),
  Schema.TaggedStruct("Replicas", { node: Which, blocks: between(1, 4), seconds }),
  Schema.TaggedStruct("Early", { node: Which, millis: between(50, 4000), seconds }),
  ...often(Schema.TaggedStruct("Empty", { node: Which, times: between(1, 6) })),
  Schema.TaggedStruct("Unknown", { node: Which, times: between(1, 6) }),
  Schema.TaggedStruct("Mixed", { node: Which, times: between(1, 4) }),
  ...often(
    Schema.TaggedStruct("Short", {
      node: Which,
      times: between(1, 4),
      without: Schema.Literals(["first", "half"]),
    }),
  ),
  Schema.TaggedStruct("Refuse", { node: Which, times: between(1, 4) }),
  Schema.TaggedStruct("Words", { node: Which, times: between(1, 6), words: Words }),
  Schema.TaggedStruct("NoReceipts", { node: Which, seconds }),
  Schema.TaggedStruct("WrongLogs", {
    node: Which,
    times: between(1, 4),
    field: Schema.Literals(["blockHash", "blockTimestamp"]),
  }),
  // -- the store. One that is emptied or set back takes the traces of a fault with it: not too often.
  ...often(Schema.TaggedStruct("LoseReply", { times: between(1, 3) })),
  ...often(Schema.TaggedStruct("FailStore", { times: between(1, 5) })),
  Schema.TaggedStruct("FreezeStore", { seconds }),
  Schema.TaggedStruct("ReplaceStore", { operations: Schema.Literals([1, 2, 3, 5, 8, 13, "all"]) }),
  // -- the ingestors
  Schema.TaggedStruct("Restart", { who: Which }),
  Schema.TaggedStruct("Kill", { who: Which }),
  ...often(Schema.TaggedStruct("Join", {})),
  Schema.TaggedStruct("Leave", {}),
  // All of them are restarted with another filter, which selects the same.
  Schema.TaggedStruct("Refilter", {}),
  // -- the clock on the wall: hours ahead or behind, and right again
  Schema.TaggedStruct("SetClock", { hours: Schema.Literals([-24, -1, 0, 1, 24]) }),
  // -- nothing
  Schema.TaggedStruct("Wait", { millis: between(0, 20_000) }),
])
export type Action = typeof Action.Type

/** An action, and the milliseconds until the next. */
const Step = Schema.Struct({ action: Action, pause: between(0, 2500) })
export type Step = typeof Step.Type

/** What does not change in a run. */
const Setting = Schema.Struct({
  /** Whose logs are wanted: everybody's without a filter, everybody's by a filter with all, or those of some. */
  filter: Schema.Literals(["none", "all", "some"]),
  /** How far behind the head the final block is. */
  finality: Schema.Literals([12, 24, 64]),
  /** The most logs of one call. */
  logsPerCall: Schema.Literals([5, 20, callLimits.logs]),
  /** The most blocks of one call. */
  blocksPerCall: Schema.Literals([3, callLimits.blocks]),
  /** How many entries are kept (0: all), where the store trims. */
  keeps: Schema.Literals([0, 0, 100]),
  /** Milliseconds that a push may take. */
  slowness: Schema.Literals([0, 0, 3, 17]),
  /** Whether the second node leaves the first log of each block out to the last step, which no check finds under a filter. */
  leavesOut: Schema.Literals([false, false, false, true]),
  /** Whether the nodes announce blooms of zeros and no used gas, and answer right ones (Cosmos EVM). */
  announcesZeros: Schema.Literals([false, false, false, true]),
})
export type Setting = typeof Setting.Type

export const Scenario = Schema.Struct({
  setting: Setting,
  steps: Schema.Array(Step).check(Schema.isMinLength(60), Schema.isMaxLength(80)),
})
export type Scenario = typeof Scenario.Type

/** How much a call to the store carries. */
export const limitsOf = ({ logsPerCall, blocksPerCall }: Setting): CallLimits => ({
  logs: logsPerCall,
  blocks: blocksPerCall,
  bytes: callLimits.bytes,
})
