/**
 * Writes one chain's journal: loads it under the chain's filter, submits the feed's moves to the store, and records their
 * results in the status.
 */
import { Clock, Effect, Schema } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import { pluralize, logEvent } from "../observability/LogEvents.ts"
import * as Monotonic from "../Monotonic.ts"
import { fingerprint } from "../logs/Filter.ts"
import * as Epochs from "./Epochs.ts"
import type { MoveStep, ChainStep } from "./PendingJournal.ts"
import type { StoreBreaker } from "../store/StoreBreaker.ts"
import { afterPush } from "../store/Journal.ts"
import { freeLogs } from "../store/Pushes.ts"
import type { Journal, Move, Position, Push } from "../store/Journal.ts"
import { JournalStore } from "../store/JournalStore.ts"
import type { FinalizeResult, PopResult, PushResult } from "../store/JournalStore.ts"
import type { StoreError } from "../store/StoreError.ts"
import { traceMove } from "../observability/Tracing.ts"
import { Status } from "../observability/Status.ts"
import type { Operation } from "../observability/Status.ts"

/** The store's head was not the expected one: the feed restarts from the stored journal. */
export class HeadConflict extends Schema.TaggedError<HeadConflict>()("HeadConflict", {
  expected: Schema.Finite,
  stored: Schema.optional(Schema.Finite),
}) {
  override get message() {
    const position = this.stored === undefined ? "is empty" : `is at block ${this.stored}`
    return `the store ${position}, expected block ${this.expected}: resuming from there`
  }
}

/** Another ingestor has changed the filter of the journal. */
export class FilterReplaced extends Schema.TaggedError<FilterReplaced>()("FilterReplaced", {
  filter: Schema.String,
}) {
  override get message() {
    return `the filter of the journal was replaced (${this.filter})`
  }
}

/** Publishing to this stream is paused until a consumer group catches up. */
export class Paused extends Schema.TaggedError<Paused>()("Paused", {}) {}

const logsOf = ({ blocks }: Push) => blocks.reduce((sum, { logs }) => sum + logs.length, 0)

/** The highest block of which every log is stored. */
const highestWhole = ({ number, part }: Position) => (part === 0 ? number : number - 1)

export type Result = PushResult | PopResult | FinalizeResult

/** A step, and the store's answer if it is a move. */
export type Submitted =
  | { readonly step: MoveStep; readonly result: Result }
  | { readonly step: Exclude<ChainStep, MoveStep>; readonly result: undefined }

export interface JournalWriter {
  /** The fingerprint of the chain's filter. */
  readonly filter: string
  /** The block with which the journal began, if known. It is kept when the store is emptied later. */
  readonly start: () => number | undefined
  /** Forgets the start block until the journal is loaded again. */
  readonly forgetStart: () => void
  /** The journal as the store has it, under our filter. */
  readonly load: Effect.Effect<Journal | undefined, FilterReplaced | StoreError>
  /** Submits a move to the store. Uninterruptible: shutdown waits for it. */
  readonly submit: (
    step: ChainStep,
  ) => Effect.Effect<Submitted, HeadConflict | FilterReplaced | Paused | StoreError>
  /** Records the result of a move, in the order of the moves, and frees its logs. */
  readonly acknowledge: (step: MoveStep, result: Result) => Effect.Effect<void>
}

/**
 * @param chain the chain, with its filter
 * @param storeBreaker `load` waits until it is closed
 */
export const make = Effect.fnUntraced(function* (
  chain: ChainConfig,
  storeBreaker: StoreBreaker,
): Effect.fn.Return<JournalWriter, never, AppConfig | JournalStore | Status> {
  const config = yield* AppConfig
  const store = yield* JournalStore
  const clock = yield* Clock.Clock
  const { chain: statusOf, storeOperation } = yield* Status
  const status = statusOf(chain.name)
  const filter = fingerprint(chain.filter)
  const epochs = Epochs.make(chain.id, store, status)
  /** Whether this process has written with its filter: another filter in the store is then newer than ours. */
  let established = false
  let knownStart: number | undefined
  /** The reorg whose pops are in progress: how many blocks are replaced, from which height down to which head. */
  let openReorg: { readonly depth: number; readonly from: number; readonly to: string } | undefined
  /** What the open reorg has retracted so far: the blocks that had entries, and the number of entries. */
  let retracted = { blocks: new Set<string>(), entries: 0 }

  const closeReorg = () => {
    if (openReorg === undefined) return Effect.void
    const { depth, from } = openReorg
    const { blocks, entries } = retracted
    status.recordReorg({ depth, from })
    openReorg = undefined
    retracted = { blocks: new Set(), entries: 0 }
    return logEvent(
      "reorg",
      `reorg of ${pluralize(depth, "block")} from ${from} down: ${pluralize(blocks.size, "stored block")} with ${pluralize(entries, "entry", "entries")} retracted`,
      { depth, block: from, retracted_blocks: blocks.size, retracted_entries: entries },
    )
  }

  /** The starting position is logged once per process, and again if the journal begins anew. */
  let logged: "begin" | "resume" | undefined
  const filtered = filter === "none" ? "no filter" : `filter ${filter}`

  const logBegin = (block: number) => {
    if (logged === "begin") return Effect.void
    logged = "begin"
    return logEvent("begin", `beginning at block ${block} (${filtered})`, { block, filter })
  }

  const logResume = (journal: Journal | undefined) => {
    if (journal === undefined) {
      // With `latest`, the first push determines the start block.
      return logged === undefined && typeof chain.startBlock === "number"
        ? logBegin(chain.startBlock)
        : Effect.void
    }
    if (logged !== undefined) return Effect.void
    logged = "resume"
    const stored = highestWhole(journal.head)
    const final = journal.final?.number
    const block = stored + 1
    return logEvent(
      "resume",
      `resuming at block ${block} (${final === undefined ? "nothing final yet" : `final ${final}`}, ${filtered})`,
      { block, stored, final, filter },
    )
  }

  const timed = <A, E>(operation: Operation, effect: Effect.Effect<A, E>) =>
    Effect.suspend(() => {
      const since = Monotonic.millisUnsafe(clock)
      return Effect.tap(effect, () =>
        Effect.sync(() => storeOperation[operation]((Monotonic.millisUnsafe(clock) - since) / 1000)),
      )
    })

  const load: Effect.Effect<Journal | undefined, FilterReplaced | StoreError> = Effect.gen(function* () {
    yield* storeBreaker.awaitClosed
    let journal = yield* timed("load", store.load(chain.id))
    if (journal !== undefined && journal.filter !== filter) {
      if (established) return yield* new FilterReplaced({ filter: journal.filter })
      const block = journal.head.number + 1
      yield* logEvent("filter_changed", `the filter has changed: it applies from block ${block} on`, {
        block,
        filter,
      })
      yield* store.changeFilter(chain.id, filter)
      journal = yield* store.load(chain.id)
    }
    established ||= journal !== undefined
    // Applies a lowered retention limit also on a chain without new blocks, and completes a journal of version 1.
    yield* store.trim(chain.id)
    yield* epochs.check(journal?.head.number)
    knownStart = journal?.start.number ?? knownStart
    status.stored = journal && highestWhole(journal.head)
    status.final = journal?.final?.number
    yield* logResume(journal)
    return journal
  })

  const send = (move: Move): Effect.Effect<Result, StoreError> => {
    switch (move._tag) {
      case "Push":
        return timed("push", store.push(chain.id, filter, move))
      case "Pop":
        return timed("pop", store.pop(chain.id, filter, move))
      case "Finalize":
        return timed("finalize", store.finalize(chain.id, filter, move))
    }
  }

  const perform = (move: Move) =>
    Effect.uninterruptible(Effect.tap(send(move), (result) => epochs.follow(move, result)))

  const acknowledge = ({ move, reorg, journal }: MoveStep, result: Result) => {
    let done: Effect.Effect<void> = Effect.void
    if (move._tag === "Pop") {
      const { hash, number } = move.expected
      if (openReorg?.to !== hash) done = closeReorg()
      // If the chain reorganises again meanwhile, the second depth includes the blocks of the first.
      const depth = Math.max(openReorg?.depth ?? 0, reorg ?? 0)
      if (depth > 0) openReorg = { depth, from: openReorg?.from ?? number, to: journal.head.hash }
      status.stored = move.expected.number - 1
      if (result._tag === "Popped") {
        if (openReorg !== undefined && result.removed > 0) {
          retracted.blocks.add(hash)
          retracted.entries += result.removed
        }
        status.removed += result.removed
        status.removedIncomplete += result.missing
        status.tail.popped(move.expected, result.removed)
      }
    } else done = closeReorg()
    if (move._tag === "Finalize") status.final = move.number
    if (move._tag === "Push") {
      if (result._tag === "Pushed") {
        status.published += logsOf(move)
        status.tail.pushed(move.blocks)
      } else status.deduplicated += logsOf(move)
      status.stored = highestWhole(afterPush(move))
      const last = move.blocks.findLast(({ whole }) => whole)
      if (last !== undefined) status.time.stored(last)
      if (move.final) status.final = status.stored
      freeLogs(move)
    }
    established = true
    return done
  }

  /** The span attributes of a move, after OpenTelemetry's semantic conventions for databases and messaging. */
  const attributesOf = (move: Move) => ({
    "db.system.name": config.store._tag === "Sqlite" ? "sqlite" : "redis",
    "db.operation.name": move._tag.toLowerCase(),
    "messaging.system": config.store._tag === "Sqlite" ? "sqlite" : "redis",
    "messaging.destination.name": `${config.streamPrefix}:${chain.id}`,
    ...(move._tag === "Push" && { "messaging.batch.message_count": logsOf(move) }),
    ...(move._tag === "Pop" && { "event_ingestor.block.retracted": move.expected.number }),
  })

  const submit = Effect.fnUntraced(function* (
    step: ChainStep,
  ): Effect.fn.Return<Submitted, HeadConflict | FilterReplaced | Paused | StoreError> {
    if (step._tag !== "Move") return { step, result: undefined }
    if (step.move._tag === "Push") {
      const logs = logsOf(step.move)
      status.received += logs
      status.batchSize(logs)
      // The first push of an empty store: `latest` means this block from now on, even if the store is emptied again.
      const { hash, number } = step.move.expected
      if (hash === "") {
        knownStart ??= number + 1
        yield* logBegin(number + 1)
      }
    }
    status.inFlight++
    const result = yield* Effect.ensuring(
      step.trace === undefined
        ? perform(step.move)
        : traceMove(step.trace, step.move._tag.toLowerCase(), attributesOf(step.move))(perform(step.move)),
      Effect.sync(() => void status.inFlight--),
    )
    if (result._tag === "Conflict") {
      return yield* new HeadConflict({ expected: step.move.expected.number, stored: result.head?.number })
    }
    if (result._tag === "Paused") return yield* new Paused()
    if (result._tag === "FilterChanged") return yield* new FilterReplaced({ filter: result.filter })
    return { step, result }
  })

  return {
    filter,
    start: () => knownStart,
    forgetStart: () => {
      knownStart = undefined
    },
    load,
    submit,
    acknowledge,
  }
})
