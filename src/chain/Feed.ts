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
import { refusalOf, unverified } from "../endpoint/EndpointError.ts"
import type { EndpointError, Reason } from "../endpoint/EndpointError.ts"
import type { Learned } from "../endpoint/Capabilities.ts"
import { digestOfPart, emptyJournal, floorOf } from "../store/Journal.ts"
import type { CallLimits, Journal } from "../store/Journal.ts"
import type { StoreError } from "../store/Store.ts"
import type { Audit } from "./Audit.ts"
import { ofFresh } from "../logs/BlockLogs.ts"
import { decide, firstUnlinked, pieces, placesFromTop } from "./ForkChoice.ts"
import type { Place } from "./ForkChoice.ts"
import * as Finality from "./Finality.ts"
import type { Disagreed } from "./FinalityQuorum.ts"
import type { Heads, Heard } from "../endpoint/Heads.ts"
import * as Headers from "../endpoint/Headers.ts"
import type { Asker } from "../endpoint/Headers.ts"
import type { Logs } from "../logs/LogSource.ts"
import { Moves } from "./PendingJournal.ts"
import type { Step } from "./PendingJournal.ts"
import { forkPoint } from "./RecentHeaders.ts"
import type { ForkPoint, Linked, SeenHeaders } from "./RecentHeaders.ts"
import type { Sides } from "./ForkStandoff.ts"
import type { Checks } from "../logs/Integrity.ts"
import * as Witnesses from "./CrossCheck.ts"
import type { Contradiction } from "./CrossCheck.ts"

export interface FeedOptions {
  readonly chain: Pick<ChainConfig, "startBlock" | "confirmations" | "filter" | "finality" | "finalityDepth">
  readonly connection: Asker
  readonly heads: Heads
  readonly logs: Logs
  readonly learned: Learned
  /** Everybody who can be asked now, this connection included. */
  readonly witnesses: Effect.Effect<ReadonlyArray<Asker>>
  /** Waits for those that connect for the first time: they may show another final block. */
  readonly tried: Effect.Effect<void>
  readonly checks: Checks
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
  readonly sides: Sides
  /** The headers of the chain that were seen lately. */
  readonly seen: SeenHeaders
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
const lookPatience = 30_000

/** How long a part must stand still before it is removed: another ingestor may be writing it. */
const partPatience = Duration.seconds(3)

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

type FeedError = EndpointError | Contradiction | StoreError

type Following = Stream.Stream<Step, FeedError | Outdated>

/** Moves for as long as the connection lives. */
export const make = Effect.fnUntraced(function* (
  options: FeedOptions,
): Effect.fn.Return<Stream.Stream<Step, FeedError>, FeedError, Scope.Scope> {
  const { audit, chain, connection, heads, learned, logs, seen, sides } = options
  const scope = yield* Effect.scope
  /** The height up to which blocks are being written anew. */
  let rewriting = -1
  /** The head that the node announced and does not know, and how often it was met. */
  let unknown = { hash: "", times: 0 }
  /** What another ingestor replaced, if the newest head is offered again once that has stood for long enough. */
  let awaited: Place | undefined

  const doubt = (detail: string) => unverified(connection.name, detail)
  const headerAt = (block: number | Headers.Tag) => Headers.header(connection, block)

  const latest = yield* headerAt("latest")
  if (latest === undefined) return yield* doubt("there is no latest block")
  const witnesses = Witnesses.make(connection, options.witnesses, options.checks, options.disagreed)
  const begins = options.journal === undefined && options.knownStart === undefined
  if (begins && chain.startBlock === "latest" && (yield* witnesses.isSyncing)) {
    return yield* doubt(
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
  const moves = new Moves(options.journal ?? emptyJournal(start, options.filter), options.limits, (block) => {
    seen.add(block)
    audit?.memory.wrote(block, logs.by())
  })
  audit?.memory.resume(moves.journal.head.hash)
  // A head without a log leaves the window with the next block.
  const top = moves.journal.window.at(-1)
  if (top !== undefined) seen.add(top)
  yield* options.tried
  const finality = yield* Finality.make({
    chain,
    connection,
    learned,
    audit,
    journal: () => moves.journal,
    stored: (to) => storedUpTo(to),
    onChange: heads.again,
    onFinal: options.onFinal,
    agreeOn: witnesses.agreeOn,
    onDisagreement: options.onDisagreement,
    onOutvoted: options.leave,
  })

  const { final, start: first } = moves.journal
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
      const floor = Math.max(floorOf(moves.journal).number, floorOf(stored).number)
      const [ours, theirs] = [moves.journal, stored].map(({ window }) =>
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
        if (!isOurs(stored)) audit?.memory.othersWrote()
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
    const target = yield* Effect.catchIf(ofFresh(headerAt(height)), isUnknownBlock, () =>
      Effect.succeed(undefined),
    )
    if (target === undefined && timesUnknown(header) <= mostWaits) yield* offerLater(header)
    return target
  })

  /** How often a head was met, or what is to be read of it, that the node does not have. */
  const timesUnknown = ({ hash }: Header): number => {
    unknown = { hash, times: unknown.hash === hash ? unknown.times + 1 : 1 }
    return unknown.times
  }

  const follow = (heard: Heard, forks = 0): Following =>
    Stream.unwrap(
      Effect.gen(function* () {
        const { journal } = moves
        if (journal.head.part !== 0) {
          const resumed = yield* resumePart
          if (resumed !== undefined) return Stream.concat(resumed, again(heard, forks))
          yield* offerLater(heard.header)
          return Stream.empty
        }
        const wrong = finality.takeWrong()
        // What is below the floor was looked at before it became final.
        if (wrong !== undefined && wrong > floorOf(journal).number) {
          rewriting = journal.head.number
          return Stream.concat(Stream.fromArray(moves.popDownTo(wrong - 1)), again(heard, forks))
        }
        const target = yield* targetOf(heard.header)
        if (target === undefined) return Stream.empty
        const relation = decide(journal, target)
        const isOther = relation !== "known" && relation !== "next"
        if (isOther && (yield* isReplacedStill)) return Stream.empty
        // What is written anew is compared before: the same endpoint would tell the same again. So is what is to be final
        // from the first, which is not to be undone.
        const isCompared =
          audit !== undefined &&
          target.number <= (finality.block()?.number ?? -1) &&
          (target.number <= rewriting || chain.confirmations === "finalized")
        switch (relation === "next" && isCompared ? "gap" : relation) {
          case "known":
            return Stream.make<[Step]>({ _tag: "Seen", journal, hash: target.hash, heard })
          case "next":
            return next(target, heard)
          case "gap":
            return gap(target, heard).pipe(
              Stream.catchTag("Forked", () => fork(heard, forks)),
              Stream.catchTag("EndpointError", (error) =>
                isUnknownBlock(error) ? Stream.unwrap(meetUnknown(target, heard, error)) : Stream.fail(error),
              ),
            )
          case "fork":
            return fork(heard, forks, true)
          case "rival":
            return yield* meetRival(heard, forks)
        }
      }),
    )

  const again = (heard: Heard, forks: number) => Stream.suspend(() => follow(heard, forks))

  const next = (header: Header, heard: Heard): Stream.Stream<Step, FeedError> =>
    logs.tip(header).pipe(
      Effect.map((block) => Stream.fromArray(moves.push([block], false, heard))),
      Effect.catchIf(isUnknownBlock, (error) => meetUnknown(header, heard, error)),
      Stream.unwrap,
    )

  /**
   * A block that was announced is not known: another replica answers, which is behind, or there is another block since.
   * One that knows its head is to know its logs as well, soon.
   */
  const meetUnknown = Effect.fnUntraced(function* (header: Header, heard: Heard, error: EndpointError) {
    const now = yield* headerAt("latest")
    const times = timesUnknown(header)
    if (now !== undefined && header.number > now.number + mostBlocksAhead)
      return yield* doubt(`block ${header.number} was announced, and block ${now.number} is the latest`)
    const isKnown = now === undefined || now.hash === header.hash
    if (isKnown && times > mostWaitsForLogs) return yield* error
    const isBehind = isKnown || (now.number < header.number && times <= mostWaits)
    if (isBehind) yield* offerLater(heard.header)
    // What the node has is followed meanwhile: where every block is late, the chain stands still for none of them.
    if (!isKnown && (!isBehind || now.number > moves.journal.head.number)) yield* heads.offer(now)
    return Stream.empty
  })

  const offerLater = (header: Header) =>
    heads.offer(header).pipe(Effect.delay(laterInterval), Defects.toOwner, Effect.forkIn(scope))

  const afterStandoff = (wait: number) =>
    Effect.sync(() => void (awaited = undefined)).pipe(
      Effect.andThen(heads.again),
      Effect.delay(wait),
      Defects.toOwner,
      Effect.forkIn(scope),
    )

  /** Whether another ingestor's blocks are still to stand: the node shows ours, and the store has theirs. */
  const isReplacedStill = Effect.gen(function* () {
    if (awaited === undefined || !sides.isWaiting || !(yield* isHere(awaited))) return false
    const { hash, number } = awaited
    const stored = yield* options.stored
    // Another ingestor has written it again, and perhaps made it final; or the store was emptied.
    const isOver =
      stored === undefined ||
      floorOf(stored).number >= number ||
      stored.window.some((record) => record.hash === hash)
    return isOver ? yield* new Outdated() : true
  })

  /** Whether the node shows a block. */
  const isHere = ({ number, hash }: Place) => Effect.map(headerAt(number), (shown) => shown?.hash === hash)

  /** From our head to the target: final blocks in wide ranges, the rest under their headers. */
  const gap = (target: Header, heard: Heard): Stream.Stream<Step, FeedError | Forked> =>
    Stream.concat(
      Stream.unwrap(
        Effect.gen(function* (): Effect.fn.Return<Stream.Stream<Step, FeedError | Forked>, FeedError> {
          const { journal } = moves
          const to = Math.min(target.number, finality.block()?.number ?? -1)
          if (journal.head.number >= to) return Stream.empty
          // History is not linked block by block, so our own head has to be in it.
          const { hash, number } = journal.head
          if (hash !== "" && number > floorOf(journal).number) {
            const ours = yield* headerAt(number)
            if (ours?.hash !== hash) return Stream.fail(new Forked())
            const wrong = yield* lookNow
            if (wrong !== undefined) {
              return Stream.concat(
                Stream.fromArray(moves.popDownTo(wrong - 1)),
                Stream.suspend(() => history(to, heard)),
              )
            }
          } else if (hash !== "") {
            yield* witnesses.confirm({ number, hash })
          }
          return history(to, heard)
        }),
      ),
      Stream.suspend(() => recent(target, heard)),
    )

  /** History makes final whatever is below it: that is looked at first, and nobody is waited for for long. */
  const lookNow = Effect.gen(function* () {
    const { number } = moves.journal.head
    const stored = audit && (yield* storedUpTo(number))
    return audit && (yield* audit.look(stored ?? moves.journal, number, lookPatience))
  })

  const history = (
    to: number,
    heard: Heard,
    from = moves.journal.head.number + 1,
  ): Stream.Stream<Step, EndpointError> =>
    // The start block comes alone, so that its hash is known.
    Stream.unfold({ from, alone: moves.journal.head.hash === "" }, ({ from, alone }) => {
      if (from > to) return Effect.succeed(undefined)
      const through = alone ? from : Math.min(from + logs.width() - 1, to)
      return Effect.succeed([[from, through] as const, { from: through + 1, alone: false }] as const)
    }).pipe(
      Stream.mapEffect(
        ([from, through]) => Effect.map(logs.history(from, through), (blocks) => ({ blocks, through })),
        { concurrency: historyAhead },
      ),
      Stream.flatMap(({ blocks: found, through }) => {
        const last = found.at(-1)!.number
        // Where a piece ends at a height without a block, it overlaps with the next one.
        const blocks = found.filter(({ number }) => number > moves.journal.head.number)
        const steps = Stream.fromArray(moves.push(blocks, true, heard))
        return last < through
          ? Stream.concat(
              steps,
              Stream.suspend(() => history(through, heard, last + 1)),
            )
          : steps
      }),
    )

  const recent = (target: Header, heard: Heard): Stream.Stream<Step, EndpointError | Forked> =>
    // One after the other: a head may be announced at any height.
    Stream.fromIterable(
      pieces(moves.journal.head.number + 1, target.number, () => learned.recentWidth),
      {
        chunkSize: 1,
      },
    ).pipe(
      Stream.mapEffect(([from, to]) => logs.recent(from, to), { concurrency: recentAhead }),
      Stream.flatMap((blocks) => {
        for (const block of blocks) seen.add(block)
        const unlinked = firstUnlinked(moves.journal.head.hash, blocks)
        if (unlinked === -1) return Stream.fromArray(moves.push(blocks, false, heard))
        return Stream.concat(
          Stream.fromArray(moves.push(blocks.slice(0, unlinked), false, heard)),
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
  const fork = (heard: Heard, forks: number, onAnother = false): Following =>
    forks >= mostForks
      ? Stream.fail(doubt(`block ${heard.header.number} leads to one fork after another`))
      : Stream.unwrap(
          Effect.gen(function* () {
            const { depth, number } = yield* commonAncestor
            if (onAnother && number === moves.journal.head.number) return Stream.empty
            const ours = sides.replacedBy(moves.journal, number)
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
              Stream.suspend(() => Stream.fromArray(moves.popDownTo(number, depth))),
              again(heard, forks + 1),
            )
          }),
        )

  /**
   * Where the node's chain leaves ours, by headers. One of them is asked for, and the rest of the node's own where it was not
   * seen before. `undefined` where what we have seen does not reach so far.
   */
  const leavesAt = Effect.gen(function* () {
    const { journal } = moves
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
        learned,
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
    const { journal } = moves
    const fork = yield* leavesAt
    const ours = journal.window.at(-1)
    const above = ours === undefined ? 0 : seen.above(ours.hash)
    if (fork !== undefined) {
      const shared = placesFromTop(journal).find(({ number }) => number < fork.lowest)
      // Below the final block nothing is undone on the word of headers.
      if (shared !== undefined && shared !== journal.final)
        return { number: shared.number, depth: fork.depth + above }
    }
    const number = yield* recordedAncestor
    return { number, depth: Math.min(fork?.depth ?? Infinity, journal.head.number - number) + above }
  })

  /** The same, found by asking for the headers at the heights of our records. */
  const recordedAncestor = Effect.gen(function* () {
    const { journal } = moves
    const places = placesFromTop(journal)
    for (let i = 0; i < places.length; i += Headers.mostPerBatch) {
      const some = places.slice(i, i + Headers.mostPerBatch)
      const seen = yield* Headers.headers(
        connection,
        some.map(({ number }) => number),
        learned,
      )
      const shared = some.find(({ hash }, i) => seen[i]?.hash === hash)
      if (shared !== undefined) return shared.number
    }
    if (journal.final !== undefined) {
      yield* witnesses.confirm(journal.final)
      return yield* doubt(`the node does not have block ${journal.final.number}, which is final`)
    }
    return floorOf(journal).number
  })

  /**
   * A block half written or half removed. It is completed if the node has it and its first logs are those that are
   * stored. A height that the node does not have yet waits. Another block, or other logs, are removed after the part has
   * stood still for a while: another ingestor may be writing it, and the store refuses the pop if it has.
   *
   * @returns `undefined` to wait
   */
  const resumePart = Effect.gen(function* () {
    const { number, hash, part, digest } = moves.journal.head
    if (part > 0) {
      const header = yield* headerAt(number)
      if (header === undefined) return undefined
      const block = header.hash === hash && digest !== undefined ? yield* logs.tip(header) : undefined
      if (block !== undefined && block.logs.length > part && digestOfPart(block, part) === digest)
        return Stream.suspend(() => Stream.fromArray(moves.finish(block)))
      yield* Effect.sleep(partPatience)
    }
    return Stream.suspend(() => Stream.fromArray(moves.popDownTo(number - 1)))
  })

  /** Waits until nobody shows our head any more for a while; then it is followed like a longer chain. */
  const meetRival = Effect.fnUntraced(function* (heard: Heard, forks: number) {
    const verdict = yield* witnesses.judge(moves.journal.head)
    if (verdict === "gone") return fork(heard, forks)
    if (verdict === "in doubt") yield* offerLater(heard.header)
    return Stream.empty
  })

  const raiseFloor = Effect.map(finality.raise, (place): ReadonlyArray<Step> =>
    place === undefined ? [] : [moves.finalize(place)],
  )

  yield* heads.offer(latest)

  const followTraced = (heard: Heard): Following => {
    if (heard.trace === undefined) return follow(heard)
    const followed: Step = { _tag: "Followed", trace: heard.trace }
    return Stream.suspend(() => {
      moves.trace = heard.trace
      return Stream.concat(follow(heard), Stream.make(followed))
    }).pipe(
      Stream.provideService(Tracer.ParentSpan, heard.trace),
      Stream.ensuring(Effect.sync(() => (moves.trace = undefined))),
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
const isUnknownBlock = (error: EndpointError) => refusalOf(error) === "wait for head"
