/** Folds the events of a chain into its status, from which the metrics, `/status` and the page read. */
import type { Clock } from "effect"
import { Cause } from "effect"
import type { ChainEvent, Operation } from "../chain/ChainEvents.ts"
import { errorType } from "../endpoint/EndpointError.ts"
import * as Monotonic from "../Monotonic.ts"
import type { Redactor } from "../Redactor.ts"
import { afterPush, logsOf, wholeUpTo } from "../store/Journal.ts"
import type { Push } from "../store/Journal.ts"
import * as ChainMetrics from "./ChainMetrics.ts"
import type { ChainStatus } from "./ChainStatus.ts"

/** What the fold needs beside the status. */
export interface FoldContext {
  readonly clock: Clock.Clock
  readonly redact: Redactor
  readonly storeOperation: (operation: Operation, seconds: number) => void
}

type Folds = {
  readonly [Tag in ChainEvent["_tag"]]?: (
    chain: ChainStatus,
    event: Extract<ChainEvent, { readonly _tag: Tag }>,
    context: FoldContext,
  ) => void
}

/** How many logs of a push were decoded without success. */
const undecodedOf = ({ blocks }: Push): number => {
  let undecoded = 0
  for (const { abi, logs } of blocks)
    if (abi !== undefined) for (const { args } of logs) undecoded += args === undefined ? 1 : 0
  return undecoded
}

const folds: Folds = {
  // -- endpoints
  EndpointMaintained: (chain, { endpoint, breaker, capabilities, rateLimiter }) => {
    Object.assign(chain.endpointNamed(endpoint)!, { breaker, capabilities, rateLimiter })
  },
  EndpointConnected: (chain, { endpoint: name, connection }, { clock }) => {
    const endpoint = chain.endpointNamed(name)!
    endpoint.connection = connection
    endpoint.connectedSince = Monotonic.millisUnsafe(clock)
    endpoint.connects++
  },
  EndpointFailed: (chain, { endpoint: name, error }) => {
    const endpoint = chain.endpointNamed(name)!
    endpoint.connectedSince = undefined
    chain.recordFailure(errorType(error.reason), error.message)
    // Where the store accepts no moves, the phase stays `store-unavailable`.
    if (chain.endpoint === endpoint && chain.storeBreaker?.acceptsMoves() !== false) chain.enter("connecting")
  },
  RequestEnded: (chain, { endpoint, method, outcome, millis }) =>
    chain.endpointNamed(endpoint)!.requested(method, outcome, millis),

  // -- the fleet
  FollowedHere: (chain) => chain.setFollowed(true),
  FollowedElsewhere: (chain) => chain.setFollowed(false),

  // -- the chain
  ChainStarted: (chain, { storeBreaker }) => {
    chain.storeBreaker = storeBreaker
  },
  ChainFailed: (chain, { cause }, { redact }) => {
    chain.recordFailure("defect", redact(Cause.pretty(cause)))
    chain.enter("connecting")
    for (const endpoint of chain.endpoints) endpoint.connectedSince = undefined
  },
  EndpointFollowed: (chain, { endpoint }) => {
    chain.endpoint = chain.endpointNamed(endpoint)
  },
  HeadAnnounced: (chain, { head: { header, at }, blockTime }) => chain.headAnnounced(header, at, blockTime),
  ChainIdle: (chain) => chain.confirmedIdle(),
  FinalAnnounced: (chain, { header }) => chain.finalAnnounced(header),
  HeadHandled: (chain, { head }, { clock }) => {
    if (head !== undefined) {
      const millis = Monotonic.millisUnsafe(clock) - head.at
      chain.latencies.record(millis)
      chain.observe(ChainMetrics.publishLatency, millis / 1000)
      const sinceBlock = clock.currentTimeMillisUnsafe() / 1000 - head.header.timestamp
      chain.observe(ChainMetrics.eventLatency, Math.max(sinceBlock, 0))
    }
    chain.updatePhase()
  },
  Following: (chain) => chain.updatePhase(),

  // -- the journal
  JournalLoaded: (chain, { journal }) => {
    chain.stored = journal && wholeUpTo(journal.head)
    chain.final = journal?.final?.number
  },
  MoveSubmitted: (chain, { move }) => {
    chain.inFlight++
    if (move._tag !== "Push") return
    const logs = logsOf(move)
    chain.add(ChainMetrics.eventsReceived, logs)
    chain.observe(ChainMetrics.publishBatchSize, logs)
  },
  MoveEnded: (chain) => {
    chain.inFlight--
  },
  Pushed: (chain, { push, isDuplicate }) => {
    chain.add(isDuplicate ? ChainMetrics.eventsDeduplicated : ChainMetrics.eventsPublished, logsOf(push))
    if (!isDuplicate) {
      chain.tail.pushed(push.blocks)
      chain.add(ChainMetrics.eventsUndecoded, undecodedOf(push))
    }
    chain.stored = wholeUpTo(afterPush(push))
    const last = push.blocks.findLast(({ whole }) => whole)
    if (last !== undefined) chain.time.stored(last)
    if (push.final) chain.final = chain.stored
  },
  Popped: (chain, { pop, removed, missing }) => {
    chain.stored = pop.expected.number - 1
    chain.add(ChainMetrics.eventsRemoved, removed)
    chain.add(ChainMetrics.eventsRemovedIncomplete, missing)
    chain.tail.popped(pop.expected, removed)
  },
  Finalized: (chain, { number }) => {
    chain.final = number
  },
  Reorged: (chain, { depth, from }) => {
    chain.recordReorg({ depth, from })
    chain.observe(ChainMetrics.reorgDepth, depth)
  },
  EpochBegun: (chain, { outcome }) => {
    if (outcome !== "new epoch") chain.add(ChainMetrics.storeRegressions)
  },

  // -- the store
  StoreAnswered: (_, { operation, seconds }, { storeOperation }) => storeOperation(operation, seconds),
  StoreAwaited: (chain, { error }) => {
    chain.enter("store-unavailable")
    if (error !== undefined) chain.recordStoreFailure(error)
  },
  // The reason may change while the chain waits: the cause that is shown must be the one that still holds.
  StoreRetrying: (chain, { error }) => {
    if (!chain.isLastStoreFailure(error)) chain.recordStoreFailure(error)
  },
  StreamTrimmed: (chain, { holder }) => chain.setHolder(holder),

  // -- contradictions
  Corrected: (chain, { missing, extra }) => {
    chain.add(ChainMetrics.eventsAuditedMissing, missing)
    chain.add(ChainMetrics.eventsAuditedExtra, extra)
  },
  Unaudited: (chain, { blocks }) => chain.add(ChainMetrics.blocksUnaudited, blocks),
  Contradicted: (chain, { endpoint, detail }) => {
    chain.endpointNamed(endpoint)!.auditMismatches++
    chain.recordFailure("unverified", `${endpoint}: contradicted: ${detail}`)
  },
  FinalDisagreement: (chain, { disagreement }) => {
    const isNew = disagreement !== undefined && chain.finalDisagreement === undefined
    chain.finalDisagreement = disagreement
    if (!isNew) return
    for (const endpoint of disagreement.endpoints) {
      const known = chain.endpointNamed(endpoint)
      if (known !== undefined) known.auditMismatches++
    }
    chain.recordFailure("unverified", describeDisagreement(disagreement))
  },
  Standoff: (chain, { wait }, { clock }) => {
    const isNew = chain.standoffUntil === undefined
    chain.standoffUntil = wait === 0 ? undefined : Monotonic.millisUnsafe(clock) + wait
    if (isNew && wait > 0) chain.recordFailure("unverified", standoffReason)
  },
  Halted: (chain, { type, reason }) => {
    chain.enter("halted")
    chain.recordFailure(type, reason)
  },
  Superseded: (chain) => chain.enter("superseded"),
}

/** The text of a disagreement about a final block. */
export const describeDisagreement = ({
  number,
  endpoints,
}: {
  readonly number: number
  readonly endpoints: ReadonlyArray<string>
}): string => `final block ${number} differs at ${endpoints.join(", ")}`

/** Why a chain is in a standoff. */
export const standoffReason = "another ingestor replaced blocks that this node still serves"

/** Updates the status of a chain with an event. */
export const fold = (chain: ChainStatus, event: ChainEvent, context: FoldContext): void =>
  // The table has a fold for exactly the type of each tag, which TypeScript does not follow through the index.
  (folds[event._tag] as ((...args: ReadonlyArray<unknown>) => void) | undefined)?.(chain, event, context)
