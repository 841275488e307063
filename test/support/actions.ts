/** The scenario of a simulation run: its setting and a sequence of actions. */
import { Schema } from "effect"
import { callLimits } from "../../src/store/Journal.ts"
import type { CallLimits } from "../../src/store/Journal.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Sizes = Schema.Array(between(0, 200)).check(Schema.isMinLength(1), Schema.isMaxLength(3))
const Few = Schema.Array(between(0, 12)).check(Schema.isMinLength(1), Schema.isMaxLength(8))
const Which = between(0, 1)

/** How long a fault of a node lasts. */
const seconds = between(1, 30)

const often = <S>(schema: S): ReadonlyArray<S> => [schema, schema, schema, schema]

/** Error messages that do not describe the error, or describe another one. */
const Words = Schema.Literals([
  "the ledger is not in the mood",
  "the header does not exist (hash 0x00)",
  "cannot query unfinalized data",
  "could not find block for height",
  "project ID request rate exceeded",
])

/** One action. New blocks and forks, on which all other faults act, are the most frequent. */
export const Action = Schema.Union([
  // -- the chain
  ...often(Schema.TaggedStruct("Extend", { logs: Sizes })),
  ...often(Schema.TaggedStruct("Jump", { logs: Few })),
  ...often(Schema.TaggedStruct("Fork", { depth: between(1, 64), longer: between(0, 3) })),
  Schema.TaggedStruct("Rollback", { depth: between(1, 64) }),
  Schema.TaggedStruct("NullHeights", { heights: between(1, 3), logs: between(0, 12) }),
  // -- one node is on a fork of its own for a while, or until different blocks are final
  ...often(
    Schema.TaggedStruct("Split", { node: Which, depth: between(1, 40), longer: between(-3, 3), seconds }),
  ),
  Schema.TaggedStruct("Divide", { node: Which, depth: between(1, 12), logs: between(0, 3) }),
  // -- announcements
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
  // -- responses
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
  // -- the store. Emptying or restoring it removes the traces of a fault: not too often.
  ...often(Schema.TaggedStruct("LoseReply", { times: between(1, 3) })),
  ...often(Schema.TaggedStruct("FailStore", { times: between(1, 5) })),
  Schema.TaggedStruct("FreezeStore", { seconds }),
  Schema.TaggedStruct("ReplaceStore", { operations: Schema.Literals([1, 2, 3, 5, 8, 13, "all"]) }),
  // -- the ingestors
  Schema.TaggedStruct("Restart", { who: Which }),
  Schema.TaggedStruct("Kill", { who: Which }),
  ...often(Schema.TaggedStruct("Join", {})),
  Schema.TaggedStruct("Leave", {}),
  // Restarts all ingestors with another filter, which matches the same logs.
  Schema.TaggedStruct("Refilter", {}),
  // -- the wall clock: hours ahead or behind, and correct again
  Schema.TaggedStruct("SetClock", { hours: Schema.Literals([-24, -1, 0, 1, 24]) }),
  // -- nothing
  Schema.TaggedStruct("Wait", { millis: between(0, 20_000) }),
])
export type Action = typeof Action.Type

/** An action, and the milliseconds until the next one. */
const Step = Schema.Struct({ action: Action, pause: between(0, 2500) })
export type Step = typeof Step.Type

/** The constants of a run. */
const Setting = Schema.Struct({
  /** Which logs match: all without a filter, all by a filter with every address, or those of some addresses. */
  filter: Schema.Literals(["none", "all", "some"]),
  /** How far behind the head the final block is. */
  finality: Schema.Literals([12, 24, 64]),
  /** The most logs of one call. */
  logsPerCall: Schema.Literals([5, 20, callLimits.logs]),
  /** The most blocks of one call. */
  blocksPerCall: Schema.Literals([3, callLimits.blocks]),
  /** How many entries the store retains (0: all). */
  keeps: Schema.Literals([0, 0, 100]),
  /** The longest duration of a push in milliseconds. */
  slowness: Schema.Literals([0, 0, 3, 17]),
  /** Whether the second node omits the first log of each block until the last step: no check detects that under a filter. */
  leavesOut: Schema.Literals([false, false, false, true]),
  /** Whether the nodes announce zero blooms and no gas used, and return correct ones (Cosmos EVM). */
  announcesZeros: Schema.Literals([false, false, false, true]),
})
export type Setting = typeof Setting.Type

export const Scenario = Schema.Struct({
  setting: Setting,
  steps: Schema.Array(Step).check(Schema.isMinLength(60), Schema.isMaxLength(80)),
})
export type Scenario = typeof Scenario.Type

/** The size limits of a call to the store. */
export const limitsOf = ({ logsPerCall, blocksPerCall }: Setting): CallLimits => ({
  logs: logsPerCall,
  blocks: blocksPerCall,
  bytes: callLimits.bytes,
})
