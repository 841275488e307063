/** Writes one chain's journal: loads it under the chain's filter, submits moves to the store, and publishes their results. */
import { Clock, Effect, Schema } from "effect"
import { AppConfig } from "../config/AppConfig.ts"
import type { ChainConfig, Settings } from "../config/AppConfig.ts"
import { systemOf } from "../config/StoreConfig.ts"
import type { ChainId } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { description, fingerprint } from "../logs/Filter.ts"
import type { Operation, Publisher } from "./ChainEvents.ts"
import * as Epochs from "./Epochs.ts"
import type { MoveStep, ChainStep } from "./PendingJournal.ts"
import type { StoreBreaker } from "../store/StoreBreaker.ts"
import { afterPush, logsOf, wholeUpTo } from "../store/Journal.ts"
import type { Journal, Move, Pop } from "../store/Journal.ts"
import { JournalStore } from "../store/JournalStore.ts"
import { traceMove } from "../Tracing.ts"
import { freeLogs } from "../store/Pushes.ts"
import type { FinalizeResult, PopResult, PushResult } from "../store/JournalStore.ts"
import type { StoreError } from "../store/StoreError.ts"

/** The store's head was not the expected one: the steps are started again from the stored journal. */
export class HeadConflict extends Schema.TaggedError<HeadConflict>()("HeadConflict", {
  expected: Schema.Finite,
  stored: Schema.optional(Schema.Finite),
}) {
  override get message() {
    const position = this.stored === undefined ? "is empty" : `is at block ${this.stored}`
    return `the store ${position}, expected block ${this.expected}: resuming from there`
  }
}

/** Another ingestor has changed the filter of the journal: while this one ran, or before it started. */
export class FilterReplaced extends Schema.TaggedError<FilterReplaced>()("FilterReplaced", {
  filter: Schema.String,
  /** Whether our filter is older than that of the journal. */
  isOutdated: Schema.Boolean,
}) {
  override get message() {
    return !this.isOutdated
      ? `the filter of the journal was replaced (${this.filter})`
      : `the configured filter is older than that of the journal (${this.filter}), which replaced it or has a higher CONFIG_VERSION. To return to it on purpose, set CONFIG_VERSION to a number above all before`
  }
}

/** Publishing to this stream is paused until a pinned reader catches up. */
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
    step: MoveStep,
  ) => Effect.Effect<Submitted, HeadConflict | FilterReplaced | Paused | StoreError>
  /** Publishes the result of a move, in the order of the moves, and frees its logs. */
  readonly acknowledge: (step: MoveStep, result: Result) => Effect.Effect<void>
}

/** Collects the pops of a reorg, which all lead down to the same block, and publishes it as one. */
class ReorgCollector {
  readonly #publish: Publisher["publish"]
  /** How many blocks are replaced, from which height down to which head, and what was retracted so far. */
  #open: { depth: number; from: number; to: string; blocks: Set<string>; entries: number } | undefined

  constructor(publish: Publisher["publish"]) {
    this.#publish = publish
  }

  /** Ends the reorg in progress, if there is one. */
  readonly close = Effect.suspend(() => {
    if (this.#open === undefined) return Effect.void
    const { depth, from, blocks, entries } = this.#open
    this.#open = undefined
    return this.#publish({ _tag: "Reorged", depth, from, blocks: blocks.size, entries })
  })

  /** Adds a pop, and ends a reorg to which it does not belong. */
  add({ journal, reorg = 0 }: MoveStep, { expected }: Pop, removed: number): Effect.Effect<void> {
    const ended = this.#open?.to === expected.hash ? Effect.void : this.close
    return Effect.map(ended, () => {
      // If the chain reorganises again meanwhile, the second depth includes the blocks of the first.
      const depth = Math.max(this.#open?.depth ?? 0, reorg)
      if (depth === 0) return
      const { from = expected.number, blocks = new Set<string>(), entries = 0 } = this.#open ?? {}
      if (removed > 0) blocks.add(expected.hash)
      this.#open = { depth, from, to: journal.head.hash, blocks, entries: entries + removed }
    })
  }
}

/** Why the store did not take a move. */
const refusalOf = (move: Move, result: Result) => {
  switch (result._tag) {
    case "Conflict":
      return new HeadConflict({ expected: move.expected.number, stored: result.head?.number })
    case "Paused":
      return new Paused()
    case "FilterChanged":
      return new FilterReplaced({ filter: result.filter, isOutdated: false })
    default:
      return undefined
  }
}

/** The span attributes of a move, after OpenTelemetry's semantic conventions for databases and messaging. */
const attributesOf = ({ store, streamPrefix }: Settings, chain: ChainId, move: Move) => {
  const system = systemOf(store)
  return {
    "db.system.name": system,
    "db.operation.name": move._tag.toLowerCase(),
    "messaging.system": system,
    "messaging.destination.name": `${streamPrefix}:${chain}`,
    ...(move._tag === "Push" && { "messaging.batch.message_count": logsOf(move) }),
    ...(move._tag === "Pop" && { "event_ingestor.block.retracted": move.expected.number }),
  }
}

/** The calls to the store for one chain; the duration of each is recorded. */
const timedCalls = (
  store: JournalStore["Service"],
  chain: ChainId,
  filter: string,
  record: Publisher["record"],
  clock: Clock.Clock,
) => {
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
  return {
    load: timed("load", store.load(chain)),
    send: (move: Move): Effect.Effect<Result, StoreError> => {
      switch (move._tag) {
        case "Push":
          return timed("push", store.push(chain, filter, move))
        case "Pop":
          return timed("pop", store.pop(chain, filter, move))
        case "Finalize":
          return timed("finalize", store.finalize(chain, filter, move))
      }
    },
  }
}

/** Continues a journal under the filter of a chain, from the block above its head on. Fails if that is older than the journal's. */
const underFilter = Effect.fnUntraced(function* (
  store: JournalStore["Service"],
  { id, filter: content }: ChainConfig,
  configVersion: number | undefined,
  journal: Journal | undefined,
  publish: Publisher["publish"],
) {
  const filter = fingerprint(content)
  if (journal === undefined || journal.filter === filter) return journal
  const outcome = yield* store.changeFilter(id, filter, description(content), configVersion)
  if (outcome === "outdated") return yield* new FilterReplaced({ filter: journal.filter, isOutdated: true })
  yield* publish({ _tag: "FilterChanged", block: journal.head.number + 1, filter })
  return yield* store.load(id)
})

/**
 * @param chain the chain, with its filter
 * @param storeBreaker `load` waits until it is closed
 */
export const make = Effect.fnUntraced(function* (
  chain: ChainConfig,
  storeBreaker: Pick<StoreBreaker, "awaitClosed">,
  { publish, record }: Publisher,
): Effect.fn.Return<JournalWriter, never, AppConfig | JournalStore> {
  const config = yield* AppConfig
  const store = yield* JournalStore
  const filter = fingerprint(chain.filter)
  const calls = timedCalls(store, chain.id, filter, record, yield* Clock.Clock)
  /** The block up to which the store has everything, as last seen. */
  let stored: number | undefined
  const epochs = Epochs.make(chain.id, store, () => stored, publish)
  /** Whether this process has written with its filter: another filter in the store is then newer than ours. */
  let established = false
  let knownStart: number | undefined
  const reorgs = new ReorgCollector(publish)

  const load: Effect.Effect<Journal | undefined, FilterReplaced | StoreError> = Effect.gen(function* () {
    yield* storeBreaker.awaitClosed
    const found = yield* calls.load
    if (found !== undefined && found.filter !== filter && established)
      return yield* new FilterReplaced({ filter: found.filter, isOutdated: false })
    const journal = yield* underFilter(store, chain, config.configVersion, found, publish)
    established ||= journal !== undefined
    // Applies a lowered retention limit also on a chain without new blocks, and completes a journal of version 1.
    yield* store.trim(chain.id, description(chain.filter))
    yield* epochs.check(journal?.head.number)
    knownStart = journal?.start.number ?? knownStart
    stored = journal && wholeUpTo(journal.head)
    // With `latest`, the first push determines the start block.
    const begins = typeof chain.startBlock === "number" ? chain.startBlock : undefined
    yield* publish({ _tag: "JournalLoaded", journal, begins, filter })
    return journal
  })

  const perform = (move: Move) =>
    Effect.uninterruptible(Effect.tap(calls.send(move), (result) => epochs.follow(move, result)))

  const acknowledge = Effect.fnUntraced(function* (step: MoveStep, result: Result) {
    const { move } = step
    established = true
    if (move._tag === "Pop") {
      stored = move.expected.number - 1
      const { removed, missing } = result._tag === "Popped" ? result : { removed: 0, missing: 0 }
      yield* reorgs.add(step, move, removed)
      return record({ _tag: "Popped", pop: move, removed, missing })
    }
    yield* reorgs.close
    if (move._tag === "Finalize") return record({ _tag: "Finalized", number: move.number })
    stored = wholeUpTo(afterPush(move))
    record({ _tag: "Pushed", push: move, isDuplicate: result._tag === "Duplicate" })
    freeLogs(move)
  }, Effect.uninterruptible)

  const submit = Effect.fnUntraced(function* (
    step: MoveStep,
  ): Effect.fn.Return<Submitted, HeadConflict | FilterReplaced | Paused | StoreError> {
    const { move, trace } = step
    if (move._tag === "Push" && move.expected.hash === "") {
      // The first push of an empty store: `latest` means this block from now on, even if the store is emptied again.
      const block = move.expected.number + 1
      knownStart ??= block
      yield* publish({ _tag: "JournalBegun", block, filter })
    }
    record({ _tag: "MoveSubmitted", move })
    const performed = traceMove(trace, move._tag.toLowerCase(), () => attributesOf(config, chain.id, move))(
      perform(move),
    )
    const result = yield* Effect.ensuring(
      performed,
      Effect.sync(() => record({ _tag: "MoveEnded" })),
    )
    const refusal = refusalOf(move, result)
    return refusal === undefined ? { step, result } : yield* refusal
  })

  const forgetStart = () => void (knownStart = undefined)
  return { filter, start: () => knownStart, forgetStart, load, submit, acknowledge }
})
