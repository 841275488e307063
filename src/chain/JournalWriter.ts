/** Writes one chain's journal: loads it under the chain's filter, submits moves to the store, and publishes their results. */
import { Clock, Effect, Schema } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Monotonic from "../Monotonic.ts"
import { fingerprint } from "../logs/Filter.ts"
import type { Operation, Publisher } from "./ChainEvents.ts"
import * as Epochs from "./Epochs.ts"
import type { MoveStep, ChainStep } from "./PendingJournal.ts"
import type { StoreBreaker } from "../store/StoreBreaker.ts"
import { afterPush, freeLogs, logsOf, wholeUpTo } from "../store/Journal.ts"
import type { Journal, Move, Pop } from "../store/Journal.ts"
import { Store } from "../store/Store.ts"
import type { FinalizeResult, PopResult, PushResult, StoreError } from "../store/Store.ts"
import { traceMove } from "../observability/Tracing.ts"

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
  /** Publishes the result of a move, in the order of the moves, and frees its logs. */
  readonly acknowledge: (step: MoveStep, result: Result) => Effect.Effect<void>
}

/**
 * @param chain the chain, with its filter
 * @param storeBreaker `load` waits until it is closed
 */
export const make = Effect.fnUntraced(function* (
  chain: ChainConfig,
  storeBreaker: Pick<StoreBreaker, "awaitClosed">,
  { publish, record }: Publisher,
): Effect.fn.Return<JournalWriter, never, AppConfig | Store> {
  const config = yield* AppConfig
  const store = yield* Store
  const clock = yield* Clock.Clock
  const filter = fingerprint(chain.filter)
  /** The block up to which the store has everything, as last seen. */
  let stored: number | undefined
  const epochs = Epochs.make(chain.id, store, () => stored, publish)
  /** Whether this process has written with its filter: another filter in the store is then newer than ours. */
  let established = false
  let knownStart: number | undefined
  /** The reorg whose pops are in progress: how many blocks are replaced, from which height down to which head. */
  let openReorg: { readonly depth: number; readonly from: number; readonly to: string } | undefined
  /** What the open reorg has retracted so far: the blocks that had entries, and the number of entries. */
  let retracted = { blocks: new Set<string>(), entries: 0 }

  const closeReorg = Effect.suspend(() => {
    if (openReorg === undefined) return Effect.void
    const { depth, from } = openReorg
    const { blocks, entries } = retracted
    openReorg = undefined
    retracted = { blocks: new Set(), entries: 0 }
    return publish({ _tag: "Reorged", depth, from, blocks: blocks.size, entries })
  })

  const timed = <A, E>(operation: Operation, effect: Effect.Effect<A, E>) =>
    Effect.suspend(() => {
      const since = Monotonic.millisUnsafe(clock)
      return Effect.tap(effect, () =>
        Effect.sync(() => {
          const seconds = (Monotonic.millisUnsafe(clock) - since) / 1000
          record({ _tag: "StoreAnswered", operation, seconds })
        }),
      )
    })

  const load: Effect.Effect<Journal | undefined, FilterReplaced | StoreError> = Effect.gen(function* () {
    yield* storeBreaker.awaitClosed
    let journal = yield* timed("load", store.load(chain.id))
    if (journal !== undefined && journal.filter !== filter) {
      if (established) return yield* new FilterReplaced({ filter: journal.filter })
      const block = journal.head.number + 1
      yield* publish({ _tag: "FilterChanged", block, filter })
      yield* store.changeFilter(chain.id, filter)
      journal = yield* store.load(chain.id)
    }
    established ||= journal !== undefined
    // Applies a lowered retention limit also on a chain without new blocks, and completes a journal of version 1.
    yield* store.trim(chain.id)
    yield* epochs.check(journal?.head.number)
    knownStart = journal?.start.number ?? knownStart
    stored = journal && wholeUpTo(journal.head)
    // With `latest`, the first push determines the start block.
    const begins = typeof chain.startBlock === "number" ? chain.startBlock : undefined
    yield* publish({ _tag: "JournalLoaded", journal, begins, filter })
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

  /** Records a pop as part of a reorg, of which all pops lead down to the same block. */
  const followReorg = Effect.fnUntraced(function* ({ journal, reorg = 0 }: MoveStep, { expected }: Pop) {
    if (openReorg?.to !== expected.hash) yield* closeReorg
    // If the chain reorganises again meanwhile, the second depth includes the blocks of the first.
    const depth = Math.max(openReorg?.depth ?? 0, reorg)
    if (depth > 0) openReorg = { depth, from: openReorg?.from ?? expected.number, to: journal.head.hash }
  })

  const acknowledge = Effect.fnUntraced(function* (step: MoveStep, result: Result) {
    const { move } = step
    established = true
    if (move._tag === "Pop") {
      yield* followReorg(step, move)
      stored = move.expected.number - 1
      const { removed, missing } = result._tag === "Popped" ? result : { removed: 0, missing: 0 }
      if (openReorg !== undefined && removed > 0) {
        retracted.blocks.add(move.expected.hash)
        retracted.entries += removed
      }
      return record({ _tag: "Popped", pop: move, removed, missing })
    }
    yield* closeReorg
    if (move._tag === "Finalize") return record({ _tag: "Finalized", number: move.number })
    stored = wholeUpTo(afterPush(move))
    record({ _tag: "Pushed", push: move, isDuplicate: result._tag === "Duplicate" })
    freeLogs(move)
  })

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
    record({ _tag: "MoveSubmitted", move: step.move })
    if (step.move._tag === "Push") {
      // The first push of an empty store: `latest` means this block from now on, even if the store is emptied again.
      const { hash, number } = step.move.expected
      if (hash === "") {
        knownStart ??= number + 1
        yield* publish({ _tag: "JournalBegun", block: number + 1, filter })
      }
    }
    const result = yield* Effect.ensuring(
      step.trace === undefined
        ? perform(step.move)
        : traceMove(step.trace, step.move._tag.toLowerCase(), attributesOf(step.move))(perform(step.move)),
      Effect.sync(() => record({ _tag: "MoveEnded" })),
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
