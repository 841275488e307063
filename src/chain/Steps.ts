/**
 * One chain as a stream of steps over one connection: announced heads go in, pushes, pops and finality come out, in the order
 * in which the store must make them.
 *
 * It starts from the journal as the store has it, and is started again when the store disagrees.
 */
import { Clock, Duration, Effect, Queue, Stream } from "effect"
import type { Scope } from "effect"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { Header } from "../Domain.ts"
import type { DecodeBlock } from "../abi/LoadDecoder.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError, Reason } from "../endpoint/EndpointError.ts"
import type { Heads } from "../endpoint/Heads.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { RpcClient } from "../endpoint/RpcClient.ts"
import type { IntegrityChecks } from "../logs/Integrity.ts"
import { emptyJournal } from "../store/Journal.ts"
import type { CallLimits, Journal } from "../store/Journal.ts"
import type { Publisher } from "./ChainEvents.ts"
import * as CrossCheck from "./CrossCheck.ts"
import type { FinalityViolation } from "./CrossCheck.ts"
import * as Finality from "./Finality.ts"
import type { Disagreed } from "../endpoint/FinalityQuorum.ts"
import { PendingJournal } from "./PendingJournal.ts"
import type { ChainStep } from "./PendingJournal.ts"
import * as Reconcile from "./Reconcile.ts"
import { storedUpTo } from "./StoredJournal.ts"
import type { StoreError } from "../store/StoreError.ts"

type FromReconcile =
  | "connection"
  | "logs"
  | "capabilities"
  | "audit"
  | "stored"
  | "standoff"
  | "recentHeaders"

export interface StepsOptions extends Pick<Reconcile.ReconcileOptions, FromReconcile> {
  readonly heads: Pick<Heads, "stream" | "replay" | "inject">
  readonly chain: Pick<ChainConfig, "startBlock" | "confirmations" | "finality" | "finalityDepth">
  /** All endpoints that are connected, this one included. */
  readonly connections: Effect.Effect<ReadonlyArray<RpcClient>>
  /** Waits for those that connect for the first time: they may show another final block. */
  readonly firstAttempts: Effect.Effect<void>
  readonly checks: IntegrityChecks
  readonly disagreed: Disagreed
  /** The journal as the store has it; `undefined` for an empty store. */
  readonly journal: Journal | undefined
  /** The fingerprint of the filter. */
  readonly filter: string
  /** How much a push carries now, and how many logs a pop removes. */
  readonly limits: { readonly push: () => CallLimits; readonly pop: number }
  /** Where this process began an empty store before. */
  readonly knownStart: number | undefined
  readonly events: Publisher
  /** Decodes the logs of a block, if the chain's events are configured. */
  readonly decode: DecodeBlock | undefined
  /** Ends the connection for this reason. */
  readonly disconnect: (reason: Reason) => Effect.Effect<void>
}

/**
 * A latest block whose time is further from now than this is reported (milliseconds): some nodes send milliseconds, and some
 * machines have a wrong clock. The time is stored as the endpoint reports it.
 */
const maxSkew = Duration.toMillis("1 day")

type StepsError = EndpointError | FinalityViolation | StoreError

/** Where the journal of an empty store begins. */
const startBlock = Effect.fnUntraced(function* (
  { chain, connection, journal, knownStart }: StepsOptions,
  latest: Header,
  crossCheck: CrossCheck.CrossCheck,
) {
  if (knownStart !== undefined) return knownStart
  if (chain.startBlock !== "latest") return chain.startBlock
  if (journal !== undefined) return latest.number
  if (yield* crossCheck.isSyncing) {
    const detail = `the node is syncing and at block ${latest.number}: its latest block is not the chain's`
    return yield* integrityError(connection.name, detail)
  }
  return yield* crossCheck.highestLatest(latest.number)
})

/** Steps for as long as the connection lives. */
export const make = Effect.fnUntraced(function* (
  options: StepsOptions,
): Effect.fn.Return<Stream.Stream<ChainStep, StepsError>, StepsError, Scope.Scope> {
  const { audit, chain, connection, heads, capabilities, logs, recentHeaders } = options
  const latest = yield* Eth.blockByNumber(connection, "latest")
  if (latest === undefined) return yield* integrityError(connection.name, "the node has no latest block")
  if (Math.abs((yield* Clock.currentTimeMillis) - latest.timestamp * 1000) > maxSkew)
    yield* options.events.publish({ _tag: "ClockSkewed", endpoint: connection.name, header: latest })
  const crossCheck = CrossCheck.make(connection, options.connections, options.checks, options.disagreed)
  const pending = new PendingJournal(
    options.journal ?? emptyJournal(yield* startBlock(options, latest, crossCheck), options.filter),
    options.limits,
    (block) => {
      recentHeaders.add(block)
      audit?.provenance.recordPush(block, logs.servedBy())
    },
    options.decode,
  )
  audit?.provenance.resume(pending.journal.head.hash)
  // A head without a log leaves the window with the next block.
  const top = pending.journal.window.at(-1)
  if (top !== undefined) recentHeaders.add(top)
  yield* options.firstAttempts
  const stored = (to: number) =>
    storedUpTo(
      to,
      options.stored,
      () => pending.journal,
      () => audit?.provenance.invalidate(),
    )
  const finality = yield* Finality.make({
    chain,
    connection,
    capabilities,
    audit,
    journal: () => pending.journal,
    stored,
    onChange: heads.replay,
    events: options.events,
    agreeOn: crossCheck.agreeOn,
    onOutvoted: options.disconnect,
  })
  const { final, start } = pending.journal
  if (final !== undefined) {
    yield* crossCheck.confirm(final)
    if (start.hash !== "" && start.number < final.number)
      yield* crossCheck.confirm({ number: start.number, hash: start.hash })
  }
  yield* heads.inject(latest)
  const scope = yield* Effect.scope
  const parts = { ...options, pending, crossCheck, finality, storedUpTo: stored, scope }
  return Stream.callback<ChainStep, StepsError>(
    (queue) => {
      const reconcile = Reconcile.make(parts, (steps) => Effect.asVoid(Queue.offerAll(queue, steps)))
      return heads.stream.pipe(
        Stream.runForEach(reconcile),
        // The stream ends, and is started again from the journal as it is now.
        Effect.catchTag("Outdated", () => Queue.end(queue)),
      )
    },
    { bufferSize: 1, strategy: "suspend" },
  )
})
