/**
 * One chain as a stream of moves: announced heads go in, pushes, pops and finality come out, in the order in which the
 * store must make them.
 *
 * It starts from the journal as the store has it, and is started again when the store disagrees.
 */
import { Duration, Effect, Schedule, Schema, Stream, Tracer } from "effect"
import type { Scope } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import * as Defects from "../Defects.ts"
import type { Header } from "../Domain.ts"
import * as Monotonic from "../Monotonic.ts"
import { errorKind, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError, Reason } from "../endpoint/EndpointError.ts"
import type { Capabilities } from "../endpoint/Capabilities.ts"
import { digestOfPart, emptyJournal, finalizedHead } from "../store/Journal.ts"
import type { CallLimits, Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/Store.ts"
import type { Audit } from "./Audit.ts"
import { ambiguousAsNotFound } from "../logs/BlockLogs.ts"
import { classifyHead, firstBrokenLink, blockRanges, ancestorCandidates } from "./ForkChoice.ts"
import type { BlockRef } from "./ForkChoice.ts"
import * as Finality from "./Finality.ts"
import type { Disagreed } from "./FinalityQuorum.ts"
import type { Heads, ReceivedHead } from "../endpoint/Heads.ts"
import * as Headers from "../endpoint/Headers.ts"
import type { NamedClient } from "../endpoint/Headers.ts"
import type { LogSource } from "../logs/LogSource.ts"
import { PendingJournal } from "./PendingJournal.ts"
import type { ChainStep } from "./PendingJournal.ts"
import { forkPoint } from "./RecentHeaders.ts"
import type { ForkPoint, Linked, RecentHeaders } from "./RecentHeaders.ts"
import type { ForkStandoff } from "./ForkStandoff.ts"
import type { IntegrityChecks } from "../logs/Integrity.ts"
import * as CrossCheck from "./CrossCheck.ts"
import type { FinalityViolation } from "./CrossCheck.ts"

export interface FeedOptions {
  readonly chain: Pick<ChainConfig, "startBlock" | "confirmations" | "filter" | "finality" | "finalityDepth">
  readonly connection: NamedClient
  readonly heads: Heads
  readonly logs: LogSource
  readonly capabilities: Capabilities
  /** Everybody who can be asked now, this connection included. */
  readonly endpoints: Effect.Effect<ReadonlyArray<NamedClient>>
  /** Waits for those that connect for the first time: they may show another final block. */
  readonly firstAttempts: Effect.Effect<void>
  readonly checks: IntegrityChecks
  readonly disagreed: Disagreed
  /** The journal as the store has it; `undefined` for an empty store. */
  readonly journal: Journal | undefined
  /** The same, now. */
  readonly stored: Effect.Effect<Journal | undefined, StoreError>
  readonly filter: string
  /** How much a push carries now, and how many logs a pop undoes. */
  readonly limits: { readonly push: () => CallLimits; readonly pop: number }
  /** Where an empty store was begun before, by this process. */
  readonly knownStart: number | undefined
  /** What the node and the store agreed on, to know whether another ingestor replaced it. */
  readonly sides: ForkStandoff
  /** The headers of the chain that were seen lately. */
  readonly seen: RecentHeaders
  /** Another ingestor's node is on another fork: ours is not written again for so many milliseconds; 0: no longer so. */
  readonly onStandoff: (wait: number) => Effect.Effect<void>
  readonly onFinal: (header: Header) => void
  readonly onDisagreement: Finality.FinalityOptions["onDisagreement"]
  /** Ends the connection for this reason. */
  readonly leave: (reason: Reason) => Effect.Effect<void>
  /** The second look, where it is taken. */
  readonly audit?: Audit | undefined
}

/** A head that cannot be followed now is offered again after a while. */
const laterInterval = Duration.seconds(1)

/** A head that its node does not know yet is offered again so often; less often if it knows it, but not its logs. */
const mostWaits = 60
const mostWaitsForLogs = 5

/**
 * A chain that goes on after a while waits so long (milliseconds) for endpoints that are still connecting, once: four
 * tries of each.
 */
const auditDeadline = 30_000

/** How long a part must stand still before it is removed: another ingestor may be writing it. */
const partialBlockDelay = Duration.seconds(3)

/** How often, and how far apart, the store is read until it has what is on its way to it. */
const settling = Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 6 }))

/** A head that is higher above the node's own latest block than this is no head that a replica is late for. */
const mostBlocksAhead = 1000

/** Pieces of a gap that are fetched at the same time. */
const historyAhead = 4
const recentAhead = 3

/** How often one head may lead to another fork before the connection is not believed. */
const mostForks = 5

/** Internal: what was fetched is not on top of our head. */
class Forked extends Schema.TaggedError<Forked>()("Forked", {}) {}

/** Internal: the store has changed meanwhile, so that the journal is to be read again. */
class Outdated extends Schema.TaggedError<Outdated>()("Outdated", {}) {}

type FeedError = EndpointError | FinalityViolation | StoreError

type Following = Stream.Stream<ChainStep, FeedError | Outdated>

/** Moves for as long as the connection lives. */
export const make = Effect.fnUntraced(function* (
  options: FeedOptions,
): Effect.fn.Return<Stream.Stream<ChainStep, FeedError>, FeedError, Scope.Scope> {
  const { audit, chain, connection, heads, capabilities, logs, seen, sides } = options
  const scope = yield* Effect.scope
  /** The height up to which blocks are being written anew. */
  let rewriting = -1
  /** The head that the node announced and does not know, and how often it was met. */
  let unknown = { hash: "", times: 0 }
  /** What another ingestor replaced, if the newest head is offered again once that has stood for long enough. */
  let awaited: BlockRef | undefined

  const doubtful = (detail: string) => integrityError(connection.name, detail)
  const headerAt = (block: number | Headers.Tag) => Headers.header(connection, block)

  const latest = yield* headerAt("latest")
  if (latest === undefined) return yield* doubtful("there is no latest block")
  const witnesses = CrossCheck.make(connection, options.endpoints, options.checks, options.disagreed)
  const begins = options.journal === undefined && options.knownStart === undefined
  if (begins && chain.startBlock === "latest" && (yield* witnesses.isSyncing)) {
    return yield* doubtful(
      `the node is syncing and at block ${latest.number}: its latest block is not the chain's`,
    )
  }
  const start =
    options.knownStart ??
    (chain.startBlock !== "latest"
      ? chain.startBlock
      : begins
        ? yield* witnesses.highestLatest(latest.number)
        : latest.number)
  const pending = new PendingJournal(
    options.journal ?? emptyJournal(start, options.filter),
    options.limits,
    (block) => {
      seen.add(block)
      audit?.provenance.recordPush(block, logs.servedBy())
    },
  )
  audit?.provenance.resume(pending.journal.head.hash)
  // A head without a log leaves the window with the next block.
  const top = pending.journal.window.at(-1)
  if (top !== undefined) seen.add(top)
  yield* options.firstAttempts
  const finality = yield* Finality.make({
    chain,
    connection,
    capabilities,
    audit,
    journal: () => pending.journal,
    stored: (to) => storedUpTo(to),
    onChange: heads.replay,
    onFinal: options.onFinal,
    agreeOn: witnesses.agreeOn,
    onDisagreement: options.onDisagreement,
    onOutvoted: options.leave,
  })

  const { final, start: first } = pending.journal
  if (final !== undefined) {
    yield* witnesses.confirm(final)
    if (first.hash !== "" && first.number < final.number)
      yield* witnesses.confirm({ number: first.number, hash: first.hash })
  }

  /**
   * The journal as the store has it up to a block, once the moves on their way are done; `undefined` if it does not reach
   * there. What differs from ours then was written by somebody else, told by whomever.
   */
  const storedUpTo = (to: number) => {
    const isOurs = (stored: Journal | undefined): boolean => {
      if (stored === undefined) return false
      // Another ingestor may have raised the floor already.
      const floor = Math.max(finalizedHead(pending.journal).number, finalizedHead(stored).number)
      const [ours, theirs] = [pending.journal, stored].map(({ window }) =>
        window.filter(({ number }) => number > floor && number <= to),
      )
      return (
        ours!.length === theirs!.length &&
        ours!.every(({ hash, count }, i) => hash === theirs![i]!.hash && count === theirs![i]!.count)
      )
    }
    return options.stored.pipe(
      Effect.repeat({ schedule: settling, until: isOurs }),
      Effect.map((stored) => {
        if (!isOurs(stored)) audit?.provenance.invalidate()
        return stored !== undefined && stored.head.number >= to ? stored : undefined
      }),
    )
  }

  /** The block that the announced head lets us follow, given the confirmations that are asked for. */
  const targetOf = Effect.fnUntraced(function* (header: Header) {
    if (chain.confirmations === "finalized") return finality.block()
    if (chain.confirmations === 0) return header
    const height = header.number - chain.confirmations
    if (height < 0) return undefined
    const target = yield* Effect.catchIf(ambiguousAsNotFound(headerAt(height)), isUnknownBlock, () =>
      Effect.succeed(undefined),
    )
    if (target === undefined && timesUnknown(header) <= mostWaits) yield* retryLater(header)
    return target
  })

  /** How often a head was met, or what is to be read of it, that the node does not have. */
  const timesUnknown = ({ hash }: Header): number => {
    unknown = { hash, times: unknown.hash === hash ? unknown.times + 1 : 1 }
    return unknown.times
  }

  const reconcile = (heard: ReceivedHead, forks = 0): Following =>
    Stream.unwrap(
      Effect.gen(function* () {
        const { journal } = pending
        if (journal.head.part !== 0) {
          const resumed = yield* resumePartialBlock
          if (resumed !== undefined) return Stream.concat(resumed, reconcileAgain(heard, forks))
          yield* retryLater(heard.header)
          return Stream.empty
        }
        const wrong = finality.takeWrong()
        // What is below the floor was looked at before it became final.
        if (wrong !== undefined && wrong > finalizedHead(journal).number) {
          rewriting = journal.head.number
          return Stream.concat(Stream.fromArray(pending.rewindTo(wrong - 1)), reconcileAgain(heard, forks))
        }
        const target = yield* targetOf(heard.header)
        if (target === undefined) return Stream.empty
        const relation = classifyHead(journal, target)
        const isOther = relation !== "duplicate" && relation !== "extends"
        if (isOther && (yield* isStandoff)) return Stream.empty
        // What is written anew is compared before: the same endpoint would tell the same again. So is what is to be final
        // from the first, which is not to be undone.
        const isCompared =
          audit !== undefined &&
          target.number <= (finality.block()?.number ?? -1) &&
          (target.number <= rewriting || chain.confirmations === "finalized")
        switch (relation === "extends" && isCompared ? "gap" : relation) {
          case "duplicate":
            return Stream.make<[ChainStep]>({ _tag: "Seen", journal, hash: target.hash, heard })
          case "extends":
            return extend(target, heard)
          case "gap":
            return backfill(target, heard).pipe(
              Stream.catchTag("Forked", () => rollBack(heard, forks)),
              Stream.catchTag("EndpointError", (error) =>
                isUnknownBlock(error)
                  ? Stream.unwrap(retryUnknownBlock(target, heard, error))
                  : Stream.fail(error),
              ),
            )
          case "fork":
            return rollBack(heard, forks, true)
          case "competing":
            return yield* resolveCompetingHead(heard, forks)
        }
      }),
    )

  const reconcileAgain = (heard: ReceivedHead, forks: number) => Stream.suspend(() => reconcile(heard, forks))

  const extend = (header: Header, heard: ReceivedHead): Stream.Stream<ChainStep, FeedError> =>
    logs.block(header).pipe(
      Effect.map((block) => Stream.fromArray(pending.push([block], false, heard))),
      Effect.catchIf(isUnknownBlock, (error) => retryUnknownBlock(header, heard, error)),
      Stream.unwrap,
    )

  /**
   * A block that was announced is not known: another replica answers, which is behind, or there is another block since.
   * One that knows its head is to know its logs as well, soon.
   */
  const retryUnknownBlock = Effect.fnUntraced(function* (
    header: Header,
    heard: ReceivedHead,
    error: EndpointError,
  ) {
    const now = yield* headerAt("latest")
    const times = timesUnknown(header)
    if (now !== undefined && header.number > now.number + mostBlocksAhead)
      return yield* doubtful(`block ${header.number} was announced, and block ${now.number} is the latest`)
    const isKnown = now === undefined || now.hash === header.hash
    if (isKnown && times > mostWaitsForLogs) return yield* error
    const isBehind = isKnown || (now.number < header.number && times <= mostWaits)
    if (isBehind) yield* retryLater(heard.header)
    // What the node has is followed meanwhile: where every block is late, the chain stands still for none of them.
    if (!isKnown && (!isBehind || now.number > pending.journal.head.number)) yield* heads.inject(now)
    return Stream.empty
  })

  const retryLater = (header: Header) =>
    heads.inject(header).pipe(Effect.delay(laterInterval), Defects.toOwner, Effect.forkIn(scope))

  const afterStandoff = (wait: number) =>
    Effect.sync(() => void (awaited = undefined)).pipe(
      Effect.andThen(heads.replay),
      Effect.delay(wait),
      Defects.toOwner,
      Effect.forkIn(scope),
    )

  /** Whether another ingestor's blocks are still to stand: the node shows ours, and the store has theirs. */
  const isStandoff = Effect.gen(function* () {
    if (awaited === undefined || !sides.isWaiting || !(yield* isHere(awaited))) return false
    const { hash, number } = awaited
    const stored = yield* options.stored
    // Another ingestor has written it again, and perhaps made it final; or the store was emptied.
    const isOver =
      stored === undefined ||
      finalizedHead(stored).number >= number ||
      stored.window.some((record) => record.hash === hash)
    return isOver ? yield* new Outdated() : true
  })

  /** Whether the node shows a block. */
  const isHere = ({ number, hash }: BlockRef) => Effect.map(headerAt(number), (shown) => shown?.hash === hash)

  /** From our head to the target: final blocks in wide ranges, the rest under their headers. */
  const backfill = (target: Header, heard: ReceivedHead): Stream.Stream<ChainStep, FeedError | Forked> =>
    Stream.concat(
      Stream.unwrap(
        Effect.gen(function* (): Effect.fn.Return<Stream.Stream<ChainStep, FeedError | Forked>, FeedError> {
          const { journal } = pending
          const to = Math.min(target.number, finality.block()?.number ?? -1)
          if (journal.head.number >= to) return Stream.empty
          // History is not linked block by block, so our own head has to be in it.
          const { hash, number } = journal.head
          if (hash !== "" && number > finalizedHead(journal).number) {
            const ours = yield* headerAt(number)
            if (ours?.hash !== hash) return Stream.fail(new Forked())
            const wrong = yield* auditBeforeBackfill
            if (wrong !== undefined) {
              return Stream.concat(
                Stream.fromArray(pending.rewindTo(wrong - 1)),
                Stream.suspend(() => backfillFinalized(to, heard)),
              )
            }
          } else if (hash !== "") {
            yield* witnesses.confirm({ number, hash })
          }
          return backfillFinalized(to, heard)
        }),
      ),
      Stream.suspend(() => backfillUnfinalized(target, heard)),
    )

  /** History makes final whatever is below it: that is looked at first, and nobody is waited for for long. */
  const auditBeforeBackfill = Effect.gen(function* () {
    const { number } = pending.journal.head
    const stored = audit && (yield* storedUpTo(number))
    return audit && (yield* audit.auditRange(stored ?? pending.journal, number, auditDeadline))
  })

  const backfillFinalized = (
    to: number,
    heard: ReceivedHead,
    from = pending.journal.head.number + 1,
  ): Stream.Stream<ChainStep, EndpointError> =>
    // The start block comes alone, so that its hash is known.
    Stream.unfold({ from, alone: pending.journal.head.hash === "" }, ({ from, alone }) => {
      if (from > to) return Effect.succeed(undefined)
      const through = alone ? from : Math.min(from + logs.width() - 1, to)
      return Effect.succeed([[from, through] as const, { from: through + 1, alone: false }] as const)
    }).pipe(
      Stream.mapEffect(
        ([from, through]) =>
          Effect.map(logs.finalizedRange(from, through), (blocks) => ({ blocks, through })),
        { concurrency: historyAhead },
      ),
      Stream.flatMap(({ blocks: found, through }) => {
        const last = found.at(-1)!.number
        // Where a piece ends at a height without a block, it overlaps with the next one.
        const blocks = found.filter(({ number }) => number > pending.journal.head.number)
        const steps = Stream.fromArray(pending.push(blocks, true, heard))
        return last < through
          ? Stream.concat(
              steps,
              Stream.suspend(() => backfillFinalized(through, heard, last + 1)),
            )
          : steps
      }),
    )

  const backfillUnfinalized = (
    target: Header,
    heard: ReceivedHead,
  ): Stream.Stream<ChainStep, EndpointError | Forked> =>
    // One after the other: a head may be announced at any height.
    Stream.fromIterable(
      blockRanges(pending.journal.head.number + 1, target.number, () => capabilities.recentWidth),
      {
        chunkSize: 1,
      },
    ).pipe(
      Stream.mapEffect(([from, to]) => logs.unfinalizedRange(from, to), { concurrency: recentAhead }),
      Stream.flatMap((blocks) => {
        for (const block of blocks) seen.add(block)
        const unlinked = firstBrokenLink(pending.journal.head.hash, blocks)
        if (unlinked === -1) return Stream.fromArray(pending.push(blocks, false, heard))
        return Stream.concat(
          Stream.fromArray(pending.push(blocks.slice(0, unlinked), false, heard)),
          Stream.fail(new Forked()),
        )
      }),
    )

  /**
   * Undoes what is not canonical any more, and follows the head from there.
   *
   * @param onAnother whether the head says itself that it is on top of another block than ours: if ours stands all the
   *   same, the head is gone again
   */
  const rollBack = (heard: ReceivedHead, forks: number, onAnother = false): Following =>
    forks >= mostForks
      ? Stream.fail(doubtful(`block ${heard.header.number} leads to one fork after another`))
      : Stream.unwrap(
          Effect.gen(function* () {
            const { depth, number } = yield* commonAncestor
            if (onAnother && number === pending.journal.head.number) return Stream.empty
            const ours = sides.replacedBy(pending.journal, number)
            const isReplaced = ours !== undefined && (yield* isHere(ours))
            const wait = isReplaced ? sides.waitFor(yield* Monotonic.millis) : 0
            yield* options.onStandoff(wait)
            if (wait > 0) {
              // Each announced head leads here: one of them is enough to come back.
              if (awaited === undefined) yield* afterStandoff(wait)
              awaited = ours
              return Stream.empty
            }
            return Stream.concat(
              Stream.suspend(() => Stream.fromArray(pending.rewindTo(number, depth))),
              reconcileAgain(heard, forks + 1),
            )
          }),
        )

  /**
   * Where the node's chain leaves ours, by headers. One of them is asked for, and the rest of the node's own where it was not
   * seen before. `undefined` where what we have seen does not reach so far.
   */
  const forkPointByHeaders = Effect.gen(function* () {
    const { journal } = pending
    const parentOf = ({ parentHash }: Linked) =>
      seen.get(parentHash) ?? journal.window.find(({ hash }) => hash === parentHash)
    const ours = journal.window.at(-1)
    // Where it has no block at the height of our head, the newest is as good.
    const theirs = (yield* headerAt(journal.head.number)) ?? (yield* headerAt("latest"))
    if (ours === undefined || theirs === undefined) return undefined
    if (theirs.hash === ours.hash) return { lowest: ours.number + 1, depth: 0 } satisfies ForkPoint
    seen.add(theirs)
    for (;;) {
      const found = forkPoint(ours, theirs, parentOf)
      if (found === undefined || "depth" in found) return found
      const top = found.missing.number - 1
      const below = yield* Headers.headers(
        connection,
        Array.from({ length: Headers.mostPerBatch }, (_, i) => top - i).filter((number) => number >= 0),
        capabilities,
      )
      for (const header of below) if (header !== undefined) seen.add(header)
      // Not one chain: a node behind a balancer, or many heights without a block.
      if (!below.some((header) => header?.hash === found.missing.parentHash)) return undefined
    }
  })

  /**
   * The height of the highest recorded block that is still canonical here, and how many blocks above it are not: those that
   * we follow, and those on top of them that were announced.
   */
  const commonAncestor = Effect.gen(function* () {
    const { journal } = pending
    const rollBack = yield* forkPointByHeaders
    const ours = journal.window.at(-1)
    const above = ours === undefined ? 0 : seen.above(ours.hash)
    if (rollBack !== undefined) {
      const shared = ancestorCandidates(journal).find(({ number }) => number < rollBack.lowest)
      // Below the final block nothing is undone on the word of headers.
      if (shared !== undefined && shared !== journal.final)
        return { number: shared.number, depth: rollBack.depth + above }
    }
    const number = yield* recordedAncestor
    return { number, depth: Math.min(rollBack?.depth ?? Infinity, journal.head.number - number) + above }
  })

  /** The same, found by asking for the headers at the heights of our records. */
  const recordedAncestor = Effect.gen(function* () {
    const { journal } = pending
    const places = ancestorCandidates(journal)
    for (let i = 0; i < places.length; i += Headers.mostPerBatch) {
      const some = places.slice(i, i + Headers.mostPerBatch)
      const seen = yield* Headers.headers(
        connection,
        some.map(({ number }) => number),
        capabilities,
      )
      const shared = some.find(({ hash }, i) => seen[i]?.hash === hash)
      if (shared !== undefined) return shared.number
    }
    if (journal.final !== undefined) {
      yield* witnesses.confirm(journal.final)
      return yield* doubtful(`the node does not have block ${journal.final.number}, which is final`)
    }
    return finalizedHead(journal).number
  })

  /**
   * A block half written or half removed. It is completed if the node has it and its first logs are those that are
   * stored. A height that the node does not have yet waits. Another block, or other logs, are removed after the part has
   * stood still for a while: another ingestor may be writing it, and the store refuses the pop if it has.
   *
   * @returns `undefined` to wait
   */
  const resumePartialBlock = Effect.gen(function* () {
    const { number, hash, part, digest } = pending.journal.head
    if (part > 0) {
      const header = yield* headerAt(number)
      if (header === undefined) return undefined
      const block = header.hash === hash && digest !== undefined ? yield* logs.block(header) : undefined
      if (block !== undefined && block.logs.length > part && digestOfPart(block, part) === digest)
        return Stream.suspend(() => Stream.fromArray(pending.resume(block)))
      yield* Effect.sleep(partialBlockDelay)
    }
    return Stream.suspend(() => Stream.fromArray(pending.rewindTo(number - 1)))
  })

  /** Waits until nobody shows our head any more for a while; then it is followed like a longer chain. */
  const resolveCompetingHead = Effect.fnUntraced(function* (heard: ReceivedHead, forks: number) {
    const verdict = yield* witnesses.competingVerdict(pending.journal.head)
    if (verdict === "reorged") return rollBack(heard, forks)
    if (verdict === "unsure") yield* retryLater(heard.header)
    return Stream.empty
  })

  const raiseFloor = Effect.map(finality.finalize, (place): ReadonlyArray<ChainStep> =>
    place === undefined ? [] : [pending.finalize(place)],
  )

  yield* heads.inject(latest)

  const followTraced = (heard: ReceivedHead): Following => {
    if (heard.trace === undefined) return reconcile(heard)
    const followed: ChainStep = { _tag: "Followed", trace: heard.trace }
    return Stream.suspend(() => {
      pending.trace = heard.trace
      return Stream.concat(reconcile(heard), Stream.make(followed))
    }).pipe(
      Stream.provideService(Tracer.ParentSpan, heard.trace),
      Stream.ensuring(Effect.sync(() => (pending.trace = undefined))),
    )
  }

  return heads.stream.pipe(
    Stream.flatMap((heard) =>
      Stream.concat(
        followTraced(heard),
        Stream.suspend(() => Stream.unwrap(Effect.map(raiseFloor, (steps) => Stream.fromArray(steps)))),
      ),
    ),
    // The feed ends, and is started again from the journal as it is now.
    Stream.catchTag("Outdated", () => Stream.empty),
  )
})

/** The node says that it has no such block. */
const isUnknownBlock = (error: EndpointError) => errorKind(error) === "BlockNotFound"
