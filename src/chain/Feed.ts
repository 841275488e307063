/**
 * One chain as a stream of moves: announced heads go in; pushes, pops and finalizations come out, in the order in which
 * the store must apply them.
 *
 * It starts from the stored journal, and restarts when the store disagrees.
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
  /** All connected endpoints, this one included. */
  readonly endpoints: Effect.Effect<ReadonlyArray<NamedClient>>
  /** Waits until each endpoint has tried to connect once: one may serve another final block. */
  readonly firstAttempts: Effect.Effect<void>
  readonly checks: IntegrityChecks
  readonly disagreed: Disagreed
  /** The journal as the store has it; `undefined` for an empty store. */
  readonly journal: Journal | undefined
  /** Reads the stored journal again. */
  readonly stored: Effect.Effect<Journal | undefined, StoreError>
  readonly filter: string
  /** The current size limit of a push, and how many logs one pop retracts. */
  readonly limits: { readonly push: () => CallLimits; readonly pop: number }
  /** The start block that this process used before the store was emptied. */
  readonly knownStart: number | undefined
  /** The blocks on which the node and the store agreed, to detect that another ingestor replaced them. */
  readonly standoff: ForkStandoff
  /** The recent headers of the chain. */
  readonly seen: RecentHeaders
  /** Another ingestor's node is on another fork: ours is not written again for this many milliseconds; 0: it has ended. */
  readonly onStandoff: (wait: number) => Effect.Effect<void>
  readonly onFinal: (header: Header) => void
  readonly onDisagreement: Finality.FinalityOptions["onDisagreement"]
  /** Ends the connection with this reason. */
  readonly disconnect: (reason: Reason) => Effect.Effect<void>
  /** `undefined` if auditing is off. */
  readonly audit?: Audit | undefined
}

/** After this time, a head that cannot be followed yet is injected again. */
const retryInterval = Duration.seconds(1)

/** How often to retry a head that the node does not serve yet, and a head that it serves without its logs. */
const mostRetries = 60
const mostLogRetries = 5

/**
 * How long (milliseconds) a backfill waits for auditors before it finalizes stored blocks: four connection attempts of
 * each endpoint.
 */
const auditDeadline = 30_000

/** How long to wait before a partial block is removed: another ingestor may be writing it. */
const partialBlockDelay = Duration.seconds(3)

/** How often to read the store until it has the moves in flight. */
const storeCatchUp = Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 6 }))

/** A head further above the node's own latest block than this is invalid: no replica lags that far. */
const mostBlocksAhead = 1000

/** Ranges of a gap that are fetched at the same time. */
const finalizedConcurrency = 4
const unfinalizedConcurrency = 3

/** How many rollbacks one head may cause before the connection fails. */
const mostForks = 5

/** Internal: the fetched blocks do not extend our head. */
class Forked extends Schema.TaggedError<Forked>()("Forked", {}) {}

/** Internal: the store has changed meanwhile, and the journal must be read again. */
class Outdated extends Schema.TaggedError<Outdated>()("Outdated", {}) {}

type FeedError = EndpointError | FinalityViolation | StoreError

type ChainSteps = Stream.Stream<ChainStep, FeedError | Outdated>

/** The moves of a chain, for as long as the connection lives. */
export const make = Effect.fnUntraced(function* (
  options: FeedOptions,
): Effect.fn.Return<Stream.Stream<ChainStep, FeedError>, FeedError, Scope.Scope> {
  const { audit, chain, connection, heads, capabilities, logs, seen, standoff } = options
  const scope = yield* Effect.scope
  /** The height up to which blocks are being rewritten after an audit. */
  let rewriting = -1
  /** The announced head that the node does not serve, and how often it was tried. */
  let unknown = { hash: "", times: 0 }
  /** The block that another ingestor replaced, while a standoff is waited out. */
  let standoffBlock: BlockRef | undefined

  const integrityFailure = (detail: string) => integrityError(connection.name, detail)
  const headerAt = (block: number | Headers.Tag) => Headers.header(connection, block)

  const latest = yield* headerAt("latest")
  if (latest === undefined) return yield* integrityFailure("the node has no latest block")
  const crossCheck = CrossCheck.make(connection, options.endpoints, options.checks, options.disagreed)
  const isNewJournal = options.journal === undefined && options.knownStart === undefined
  if (isNewJournal && chain.startBlock === "latest" && (yield* crossCheck.isSyncing)) {
    return yield* integrityFailure(
      `the node is syncing and at block ${latest.number}: its latest block is not the chain's`,
    )
  }
  const start =
    options.knownStart ??
    (chain.startBlock !== "latest"
      ? chain.startBlock
      : isNewJournal
        ? yield* crossCheck.highestLatest(latest.number)
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
  // A head without logs leaves the window with the next block.
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
    agreeOn: crossCheck.agreeOn,
    onDisagreement: options.onDisagreement,
    onOutvoted: options.disconnect,
  })

  const { final, start: first } = pending.journal
  if (final !== undefined) {
    yield* crossCheck.confirm(final)
    if (first.hash !== "" && first.number < final.number)
      yield* crossCheck.confirm({ number: first.number, hash: first.hash })
  }

  /**
   * The stored journal up to a block, once the moves in flight are done; `undefined` if it does not reach that block. If
   * it differs from ours, another ingestor wrote it and its sources are unknown.
   */
  const storedUpTo = (to: number) => {
    const isOurs = (stored: Journal | undefined): boolean => {
      if (stored === undefined) return false
      // Another ingestor may have finalized more already.
      const finalizedHeight = Math.max(finalizedHead(pending.journal).number, finalizedHead(stored).number)
      const [ours, theirs] = [pending.journal, stored].map(({ window }) =>
        window.filter(({ number }) => number > finalizedHeight && number <= to),
      )
      return (
        ours!.length === theirs!.length &&
        ours!.every(({ hash, count }, i) => hash === theirs![i]!.hash && count === theirs![i]!.count)
      )
    }
    return options.stored.pipe(
      Effect.repeat({ schedule: storeCatchUp, until: isOurs }),
      Effect.map((stored) => {
        if (!isOurs(stored)) audit?.provenance.invalidate()
        return stored !== undefined && stored.head.number >= to ? stored : undefined
      }),
    )
  }

  /** The block up to which an announced head lets us write, given `CONFIRMATIONS`. */
  const targetOf = Effect.fnUntraced(function* (header: Header) {
    if (chain.confirmations === "finalized") return finality.block()
    if (chain.confirmations === 0) return header
    const height = header.number - chain.confirmations
    if (height < 0) return undefined
    const target = yield* Effect.catchIf(ambiguousAsNotFound(headerAt(height)), isUnknownBlock, () =>
      Effect.succeed(undefined),
    )
    if (target === undefined && timesUnknown(header) <= mostRetries) yield* retryLater(header)
    return target
  })

  /** Counts the attempts at a head that the node does not fully serve. */
  const timesUnknown = ({ hash }: Header): number => {
    unknown = { hash, times: unknown.hash === hash ? unknown.times + 1 : 1 }
    return unknown.times
  }

  const reconcile = (received: ReceivedHead, forks = 0): ChainSteps =>
    Stream.unwrap(
      Effect.gen(function* () {
        const { journal } = pending
        if (journal.head.part !== 0) {
          const resumed = yield* resumePartialBlock
          if (resumed !== undefined) return Stream.concat(resumed, reconcileAgain(received, forks))
          yield* retryLater(received.header)
          return Stream.empty
        }
        const mismatch = finality.takeMismatch()
        // Blocks below the finalized head were audited before they became final.
        if (mismatch !== undefined && mismatch > finalizedHead(journal).number) {
          rewriting = journal.head.number
          return Stream.concat(
            Stream.fromArray(pending.rewindTo(mismatch - 1)),
            reconcileAgain(received, forks),
          )
        }
        const target = yield* targetOf(received.header)
        if (target === undefined) return Stream.empty
        const relation = classifyHead(journal, target)
        const mayFork = relation !== "duplicate" && relation !== "extends"
        if (mayFork && (yield* isStandoff)) return Stream.empty
        // Rewritten blocks are audited before they are pushed: the same endpoint would give the same answer again. So are
        // blocks that are final when pushed: they cannot be retracted.
        const isAudited =
          audit !== undefined &&
          target.number <= (finality.block()?.number ?? -1) &&
          (target.number <= rewriting || chain.confirmations === "finalized")
        switch (relation === "extends" && isAudited ? "gap" : relation) {
          case "duplicate":
            return Stream.make<[ChainStep]>({ _tag: "NoChange", journal, hash: target.hash, received })
          case "extends":
            return extend(target, received)
          case "gap":
            return backfill(target, received).pipe(
              Stream.catchTag("Forked", () => rollBack(received, forks)),
              Stream.catchTag("EndpointError", (error) =>
                isUnknownBlock(error)
                  ? Stream.unwrap(retryUnknownBlock(target, received, error))
                  : Stream.fail(error),
              ),
            )
          case "fork":
            return rollBack(received, forks, true)
          case "competing":
            return yield* resolveCompetingHead(received, forks)
        }
      }),
    )

  const reconcileAgain = (received: ReceivedHead, forks: number) =>
    Stream.suspend(() => reconcile(received, forks))

  const extend = (header: Header, received: ReceivedHead): Stream.Stream<ChainStep, FeedError> =>
    logs.block(header).pipe(
      Effect.map((block) => Stream.fromArray(pending.push([block], false, received))),
      Effect.catchIf(isUnknownBlock, (error) => retryUnknownBlock(header, received, error)),
      Stream.unwrap,
    )

  /**
   * The node does not serve an announced block: a lagging replica has answered, or the block was replaced meanwhile. A
   * node that serves its head must serve the logs soon as well.
   */
  const retryUnknownBlock = Effect.fnUntraced(function* (
    header: Header,
    received: ReceivedHead,
    error: EndpointError,
  ) {
    const now = yield* headerAt("latest")
    const times = timesUnknown(header)
    if (now !== undefined && header.number > now.number + mostBlocksAhead)
      return yield* integrityFailure(
        `block ${header.number} was announced, but the latest block is ${now.number}`,
      )
    const isKnown = now === undefined || now.hash === header.hash
    if (isKnown && times > mostLogRetries) return yield* error
    const isBehind = isKnown || (now.number < header.number && times <= mostRetries)
    if (isBehind) yield* retryLater(received.header)
    // Follow what the node serves meanwhile: if every block is late, the chain must not stall on each of them.
    if (!isKnown && (!isBehind || now.number > pending.journal.head.number)) yield* heads.inject(now)
    return Stream.empty
  })

  const retryLater = (header: Header) =>
    heads.inject(header).pipe(Effect.delay(retryInterval), Defects.toOwner, Effect.forkIn(scope))

  const afterStandoff = (wait: number) =>
    Effect.sync(() => void (standoffBlock = undefined)).pipe(
      Effect.andThen(heads.replay),
      Effect.delay(wait),
      Defects.toOwner,
      Effect.forkIn(scope),
    )

  /** Whether the standoff goes on: the node still serves our block, and the store has another ingestor's. */
  const isStandoff = Effect.gen(function* () {
    if (standoffBlock === undefined || !standoff.isWaiting || !(yield* isCanonicalHere(standoffBlock)))
      return false
    const { hash, number } = standoffBlock
    const stored = yield* options.stored
    // Another ingestor has written our block again, and perhaps finalized it; or the store was emptied.
    const isOver =
      stored === undefined ||
      finalizedHead(stored).number >= number ||
      stored.window.some((record) => record.hash === hash)
    return isOver ? yield* new Outdated() : true
  })

  /** Whether the node serves a block as canonical. */
  const isCanonicalHere = ({ number, hash }: BlockRef) =>
    Effect.map(headerAt(number), (shown) => shown?.hash === hash)

  /** Fills the gap from our head to the target: final blocks in wide ranges, the rest linked by their headers. */
  const backfill = (target: Header, received: ReceivedHead): Stream.Stream<ChainStep, FeedError | Forked> =>
    Stream.concat(
      Stream.unwrap(
        Effect.gen(function* (): Effect.fn.Return<Stream.Stream<ChainStep, FeedError | Forked>, FeedError> {
          const { journal } = pending
          const to = Math.min(target.number, finality.block()?.number ?? -1)
          if (journal.head.number >= to) return Stream.empty
          // Final ranges are not linked block by block, so our own head must be checked first.
          const { hash, number } = journal.head
          if (hash !== "" && number > finalizedHead(journal).number) {
            const ours = yield* headerAt(number)
            if (ours?.hash !== hash) return Stream.fail(new Forked())
            const mismatch = yield* auditBeforeBackfill
            if (mismatch !== undefined) {
              return Stream.concat(
                Stream.fromArray(pending.rewindTo(mismatch - 1)),
                Stream.suspend(() => backfillFinalized(to, received)),
              )
            }
          } else if (hash !== "") {
            yield* crossCheck.confirm({ number, hash })
          }
          return backfillFinalized(to, received)
        }),
      ),
      Stream.suspend(() => backfillUnfinalized(target, received)),
    )

  /** Final blocks finalize everything below them: what is stored is audited first, for at most `auditDeadline`. */
  const auditBeforeBackfill = Effect.gen(function* () {
    const { number } = pending.journal.head
    const stored = audit && (yield* storedUpTo(number))
    return audit && (yield* audit.auditRange(stored ?? pending.journal, number, auditDeadline))
  })

  const backfillFinalized = (
    to: number,
    received: ReceivedHead,
    from = pending.journal.head.number + 1,
  ): Stream.Stream<ChainStep, EndpointError> =>
    // The start block is fetched alone, so that its hash is recorded.
    Stream.unfold({ from, alone: pending.journal.head.hash === "" }, ({ from, alone }) => {
      if (from > to) return Effect.succeed(undefined)
      const through = alone ? from : Math.min(from + logs.width() - 1, to)
      return Effect.succeed([[from, through] as const, { from: through + 1, alone: false }] as const)
    }).pipe(
      Stream.mapEffect(
        ([from, through]) =>
          Effect.map(logs.finalizedRange(from, through), (blocks) => ({ blocks, through })),
        { concurrency: finalizedConcurrency },
      ),
      Stream.flatMap(({ blocks: found, through }) => {
        const last = found.at(-1)!.number
        // A range that ends at a height without a block overlaps with the next one.
        const blocks = found.filter(({ number }) => number > pending.journal.head.number)
        const steps = Stream.fromArray(pending.push(blocks, true, received))
        return last < through
          ? Stream.concat(
              steps,
              Stream.suspend(() => backfillFinalized(through, received, last + 1)),
            )
          : steps
      }),
    )

  const backfillUnfinalized = (
    target: Header,
    received: ReceivedHead,
  ): Stream.Stream<ChainStep, EndpointError | Forked> =>
    // One by one (`chunkSize: 1`): a head may be announced at any height.
    Stream.fromIterable(
      blockRanges(pending.journal.head.number + 1, target.number, () => capabilities.recentWidth),
      {
        chunkSize: 1,
      },
    ).pipe(
      Stream.mapEffect(([from, to]) => logs.unfinalizedRange(from, to), {
        concurrency: unfinalizedConcurrency,
      }),
      Stream.flatMap((blocks) => {
        for (const block of blocks) seen.add(block)
        const brokenAt = firstBrokenLink(pending.journal.head.hash, blocks)
        if (brokenAt === -1) return Stream.fromArray(pending.push(blocks, false, received))
        return Stream.concat(
          Stream.fromArray(pending.push(blocks.slice(0, brokenAt), false, received)),
          Stream.fail(new Forked()),
        )
      }),
    )

  /**
   * Rolls back to the common ancestor, and reconciles the head from there.
   *
   * @param hasOtherParent whether the head's parent is another block than our head: if ours is canonical all the same, the
   *   head was replaced meanwhile
   */
  const rollBack = (received: ReceivedHead, forks: number, hasOtherParent = false): ChainSteps =>
    forks >= mostForks
      ? Stream.fail(integrityFailure(`block ${received.header.number} leads to one fork after another`))
      : Stream.unwrap(
          Effect.gen(function* () {
            const { depth, number } = yield* commonAncestor
            if (hasOtherParent && number === pending.journal.head.number) return Stream.empty
            const ours = standoff.replacedBy(pending.journal, number)
            const isReplaced = ours !== undefined && (yield* isCanonicalHere(ours))
            const wait = isReplaced ? standoff.waitFor(yield* Monotonic.millis) : 0
            yield* options.onStandoff(wait)
            if (wait > 0) {
              // Each announced head leads here: a single timer is enough.
              if (standoffBlock === undefined) yield* afterStandoff(wait)
              standoffBlock = ours
              return Stream.empty
            }
            return Stream.concat(
              Stream.suspend(() => Stream.fromArray(pending.rewindTo(number, depth))),
              reconcileAgain(received, forks + 1),
            )
          }),
        )

  /**
   * Finds by headers where the node's chain forks off ours. Fetches one header, and further ones of the node's chain only
   * if they were not seen before. `undefined` if our own headers do not reach that far.
   */
  const forkPointByHeaders = Effect.gen(function* () {
    const { journal } = pending
    const parentOf = ({ parentHash }: Linked) =>
      seen.get(parentHash) ?? journal.window.find(({ hash }) => hash === parentHash)
    const ours = journal.window.at(-1)
    // If it has no block at the height of our head, the latest is as good.
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
      // Not a single chain: a node behind a load balancer, or many heights without a block.
      if (!below.some((header) => header?.hash === found.missing.parentHash)) return undefined
    }
  })

  /**
   * The height of the highest recorded block that is still canonical, and how many blocks above it are not: our blocks, and
   * announced ones on top of them.
   */
  const commonAncestor = Effect.gen(function* () {
    const { journal } = pending
    const rollBack = yield* forkPointByHeaders
    const ours = journal.window.at(-1)
    const above = ours === undefined ? 0 : seen.above(ours.hash)
    if (rollBack !== undefined) {
      const shared = ancestorCandidates(journal).find(({ number }) => number < rollBack.lowest)
      // Headers alone never justify a rollback to the finalized block.
      if (shared !== undefined && shared !== journal.final)
        return { number: shared.number, depth: rollBack.depth + above }
    }
    const number = yield* recordedAncestor
    return { number, depth: Math.min(rollBack?.depth ?? Infinity, journal.head.number - number) + above }
  })

  /** The same height, found by fetching the headers at the heights of our records. */
  const recordedAncestor = Effect.gen(function* () {
    const { journal } = pending
    const candidates = ancestorCandidates(journal)
    for (let i = 0; i < candidates.length; i += Headers.mostPerBatch) {
      const some = candidates.slice(i, i + Headers.mostPerBatch)
      const seen = yield* Headers.headers(
        connection,
        some.map(({ number }) => number),
        capabilities,
      )
      const shared = some.find(({ hash }, i) => seen[i]?.hash === hash)
      if (shared !== undefined) return shared.number
    }
    if (journal.final !== undefined) {
      yield* crossCheck.confirm(journal.final)
      return yield* integrityFailure(`the node does not have finalized block ${journal.final.number}`)
    }
    return finalizedHead(journal).number
  })

  /**
   * Completes or removes a block that is partly written or partly retracted. It is completed if the node serves it and its
   * first logs are the stored ones. If the node does not have this height yet, the feed waits. Another block, or other
   * logs, are removed after a delay: another ingestor may be writing the block, and the store then refuses the pop.
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

  /** Waits until no endpoint has served our head for a while; then rolls back as for a longer chain. */
  const resolveCompetingHead = Effect.fnUntraced(function* (received: ReceivedHead, forks: number) {
    const verdict = yield* crossCheck.competingVerdict(pending.journal.head)
    if (verdict === "reorged") return rollBack(received, forks)
    if (verdict === "unsure") yield* retryLater(received.header)
    return Stream.empty
  })

  const advanceFinality = Effect.map(finality.finalize, (finalBlock): ReadonlyArray<ChainStep> =>
    finalBlock === undefined ? [] : [pending.finalize(finalBlock)],
  )

  yield* heads.inject(latest)

  const reconcileTraced = (received: ReceivedHead): ChainSteps => {
    if (received.trace === undefined) return reconcile(received)
    const headDone: ChainStep = { _tag: "HeadDone", trace: received.trace }
    return Stream.suspend(() => {
      pending.trace = received.trace
      return Stream.concat(reconcile(received), Stream.make(headDone))
    }).pipe(
      Stream.provideService(Tracer.ParentSpan, received.trace),
      Stream.ensuring(Effect.sync(() => (pending.trace = undefined))),
    )
  }

  return heads.stream.pipe(
    Stream.flatMap((received) =>
      Stream.concat(
        reconcileTraced(received),
        Stream.suspend(() => Stream.unwrap(Effect.map(advanceFinality, (steps) => Stream.fromArray(steps)))),
      ),
    ),
    // The feed ends, and restarts from the stored journal.
    Stream.catchTag("Outdated", () => Stream.empty),
  )
})

/** Whether the node reports that it has no such block. */
const isUnknownBlock = (error: EndpointError) => errorKind(error) === "BlockNotFound"
