/**
 * The real service against a chain, two nodes and a store with every known fault, in an order that depends on a seed. With
 * an in-memory store and under the test clock, the same steps give the same journal, byte for byte.
 */
import { Clock, Effect, Random, Stream } from "effect"
import type { Duration } from "effect"
import { TestClock } from "effect/testing"
import type { Header, Hex, Log } from "../../src/Domain.ts"
import * as Monotonic from "../../src/Monotonic.ts"
import type { Action, Scenario } from "./actions.ts"
import { hash } from "./blocks.ts"
import type { Copied } from "./copies.ts"
import type { Process } from "./epochWatch.ts"
import { FakeChain } from "./FakeChain.ts"
import type { FakeBlock } from "./FakeChain.ts"
import { FakeNode } from "./FakeNode.ts"
import * as FaultyStore from "./faultyStore.ts"
import { startIngestor, variablesFor } from "./ingestor.ts"
import type { Client, Ingestor } from "./ingestor.ts"
import { judge } from "./oracle.ts"
import type { Verdict } from "./oracle.ts"
import { Saboteur } from "./Saboteur.ts"
import * as WallClock from "./wallClock.ts"
import {
  blocksUnaudited,
  eventsAuditedExtra,
  eventsAuditedMissing,
} from "../../src/observability/ChainMetrics.ts"

/** Makes a store faulty on purpose. */
export type Sabotage = (store: Client, faults: FaultyStore.StoreFaults) => Client

export interface Outcome {
  readonly verdict: Verdict
  /** Whether the store reached the head of the chain in time. */
  readonly caughtUp: boolean
  /** Every entry, to compare two runs. */
  readonly journal: string
  /** How many epochs began because the store had lost entries. */
  readonly epochs: number
}

/** Virtual minutes until everything must be stored and final after the last fault. */
const recoveryDeadline = 12

/** By how many blocks a node's fork may be longer than the chain. */
const longest = 3

/** The contracts that emit logs under a filter. */
const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)

/** Contracts that emit no logs: a filter that includes them is another filter with the same matches. */
const idle = Array.from({ length: 20 }, (_, i) => hash("idle", i).slice(0, 42) as Hex)

const addressesOf = { none: [], all: contracts, some: contracts.slice(0, 1) }

/** The chain with only the logs of these addresses. */
const filtered = (
  chain: FakeChain,
  addresses: ReadonlyArray<Hex>,
): Pick<FakeChain, "id" | "byHash" | "blocks"> => {
  if (addresses.length === 0) return chain
  const isWanted = ({ contract }: Log) => addresses.includes(contract)
  const seen = new Map<Hex, FakeBlock | undefined>()
  return {
    id: chain.id,
    byHash: (hash) => {
      const block = chain.byHash(hash)
      if (!seen.has(hash)) seen.set(hash, block && { ...block, logs: block.logs.filter(isWanted) })
      return seen.get(hash)
    },
    blocks: (from, to) =>
      chain.blocks(from, to).map((block) => ({ ...block, logs: block.logs.filter(isWanted) })),
  }
}

/** Runs the steps, stops all faults, and waits until the service has recovered. */
export const simulate = Effect.fnUntraced(function* (
  { setting, steps }: Scenario,
  copied: Copied,
  sabotage: Sabotage = (store) => store,
  pass: (duration: Duration.Input) => Effect.Effect<void> = TestClock.adjust,
) {
  const clock = yield* Clock.Clock
  const wall = WallClock.make(clock)
  const addresses = addressesOf[setting.filter]
  const isFiltered = addresses.length > 0
  const chain = new FakeChain({ finality: setting.finality, ...(isFiltered && { contracts }) })
  const { store: empty, untrimmed } = copied
  const store = FaultyStore.make(copied)
  store.faults.slowness = setting.slowness
  const stale = new Map<number, FakeBlock>()
  const hosts = { one: new FakeNode(chain), two: new FakeNode(chain) }
  const saboteur = (node: FakeNode, leavesOut: boolean) =>
    new Saboteur(node, stale, {
      isFiltered,
      announcesZeros: setting.announcesZeros,
      omitsFirst: leavesOut,
      now: () => Monotonic.millisUnsafe(clock),
    })
  const nodes = [saboteur(hosts.one, false), saboteur(hosts.two, setting.leavesOut)] as const
  /** How often the filter was changed, each time to one with the same matches. */
  let refiltered = 0
  const variablesOf = (hosts: string) => ({
    ...variablesFor({ devnet: [chain, hosts] }),
    FINALITY_DEPTH: String(setting.finality),
    ...(isFiltered && { ADDRESSES: [...addresses, ...idle.slice(0, refiltered)].join() }),
  })
  const running: Array<(Process & { readonly ingestor: Ingestor }) | undefined> = [undefined, undefined]

  /** The status of every ingestor that was started. */
  const statuses: Array<Ingestor["status"]> = []

  const launch = Effect.fnUntraced(function* (who: number) {
    const state: Process = { dead: false, stopping: false }
    const client = sabotage(store.client(state, yield* copied.open), store.faults)
    const variables = variablesOf(who === 0 ? "one,two" : "two,one")
    const ingestor = yield* startIngestor(client, hosts, variables).pipe(
      Effect.provideService(Clock.Clock, wall.clock),
    )
    running[who] = Object.assign(state, { ingestor })
    statuses.push(ingestor.status)
  })
  const end = Effect.fnUntraced(function* (who: number, violently: boolean) {
    const one = running[who]
    if (one === undefined) return
    one.dead = violently
    one.stopping = true
    running[who] = undefined
    yield* Effect.forkDetach(one.ingestor.stop, { startImmediately: true })
  })

  /** Keeps the blocks that a fork of this depth replaces. */
  const remember = (depth: number) => {
    for (let number = Math.max(chain.head.number - depth + 1, 0); number <= chain.head.number; number++) {
      const block = chain.at(number)
      if (block !== undefined) stale.set(number, block)
    }
  }
  /** Blocks that were finalized and are not canonical. */
  const notFinal: Array<string> = []
  const storedFinal = Effect.map(empty.load(chain.id), (journal) => journal?.final)

  /** Checks that the block that is final in the store is canonical. */
  const checkFinal = Effect.gen(function* () {
    const final = yield* storedFinal
    if (final === undefined || chain.at(final.number)?.header.hash === final.hash) return
    notFinal.push(`block ${final.number} was finalized, and is not canonical`)
  })

  /** Two nodes disagree until different blocks are final: meanwhile none of these is finalized. */
  const divide = Effect.fnUntraced(function* ({ node, depth, logs }: Extract<Action, { _tag: "Divide" }>) {
    for (const one of nodes) one.heal()
    // Both are connected, so both have a vote.
    const ingestors = running.filter((one) => one !== undefined).length
    const areConnected = () => nodes.every((one) => one.node.sessions.size >= ingestors)
    for (let i = 0; i < 60 && !areConnected(); i++) yield* pass("2 seconds")
    if (!areConnected()) return
    yield* pass("20 seconds")
    // One that was just connected may have been left since, as it has not announced a head in time.
    if (!areConnected()) return
    const differ = Math.min(depth, chain.head.number - chain.final.number)
    // An endpoint without a block at a height has no vote on it.
    const isGapless = chain.blocks(chain.head.number - differ).length === differ + 1
    if (differ < 1 || !isGapless) return
    const view = chain.branch(differ, ...Array.from({ length: differ }, (_, i) => (i === 0 ? 0 : logs)))
    const common = Math.max(
      ...chain
        .blocks()
        .flatMap(({ number, hash }) => (view.at(number)?.header.hash === hash ? [number] : [])),
    )
    nodes[node]!.node.follow(view)
    for (let i = 0; i < 6; i++) {
      const more = Array.from({ length: Math.ceil(setting.finality / 4) }, (_, i) => (i % 4 === 3 ? logs : 0))
      chain.jump(...more)
      view.jump(...more)
      yield* pass("15 seconds")
      const final = yield* storedFinal
      if (final !== undefined && final.number > common)
        notFinal.push(`block ${final.number} was finalized, while two endpoints differ from ${common + 1} on`)
    }
    headers.push(view.head)
    nodes[node]!.node.follow(chain)
  })

  const headers: Array<Header> = [chain.head]
  chain.listen((header) => void headers.push(header))

  const act = Effect.fnUntraced(function* (action: Action) {
    const now = yield* Monotonic.millis
    switch (action._tag) {
      case "Extend":
        return chain.extend(...action.logs)
      case "Jump":
        return chain.jump(...action.logs)
      case "Fork":
        remember(action.depth)
        return chain.fork(
          action.depth,
          ...Array.from({ length: action.depth + action.longer }, (_, i) => (i * 5) % 9),
        )
      case "NullHeights":
        return chain.addNullHeights(action.heights, action.logs)
      case "Divide":
        return yield* divide(action)
      case "Rollback":
        remember(action.depth)
        return chain.rollback(action.depth)
      case "Repeat":
        return nodes[action.node]!.node.announce(headers.at(-1 - (action.back % headers.length))!)
      case "Reorder": {
        const { node } = nodes[action.node]!
        const [before, last] = [headers.at(-2), headers.at(-1)!]
        node.announce(last)
        return before && node.announce(before)
      }
      case "Silence": {
        const { node } = nodes[action.node]!
        node.announces = false
        return nodes[action.node]!.startTimed("silent", now + action.seconds * 1000, () => {
          node.announces = true
        })
      }
      case "Drop":
        if (action.when === "now") return nodes[action.node]!.node.drop()
        return void (nodes[action.node]!.drop = action.when)
      case "Freeze": {
        const { node } = nodes[action.node]!
        node.answers = false
        return nodes[action.node]!.startTimed("frozen", now + action.seconds * 1000, () => {
          node.answers = true
        })
      }
      case "Down": {
        const { node } = nodes[action.node]!
        node.up = false
        node.drop()
        return nodes[action.node]!.startTimed("down", now + action.seconds * 1000, () => {
          node.up = true
        })
      }
      case "Lag":
      case "ReturnBehind": {
        const { node } = nodes[action.node]!
        node.lag = action.blocks
        if (action._tag === "ReturnBehind") node.drop()
        return nodes[action.node]!.startTimed("behind", now + action.seconds * 1000, () => {
          node.lag = 0
        })
      }
      case "Split": {
        const { node } = nodes[action.node]!
        nodes[action.node]!.end("RangeTooLarge")
        // Even the longer fork has no different final block.
        const depth = Math.min(action.depth, chain.head.number - chain.final.number - longest)
        if (depth < 1) return
        const sizes = Array.from({ length: Math.max(depth + action.longer, 1) }, (_, i) => (i * 3) % 7)
        const view = chain.branch(depth, ...sizes)
        headers.push(view.head)
        node.follow(view)
        return nodes[action.node]!.startTimed("RangeTooLarge", now + action.seconds * 1000, () =>
          node.follow(chain),
        )
      }
      case "Replicas": {
        const one = nodes[action.node]!
        one.replicas = action.blocks
        return one.startTimed("replicas", now + action.seconds * 1000, () => {
          one.replicas = 0
        })
      }
      case "Blooms": {
        const one = nodes[action.node]!
        one.blooms = action
        return one.startTimed("blooms", now + action.seconds * 1000, () => {
          one.blooms = undefined
        })
      }
      case "Early": {
        const one = nodes[action.node]!
        one.early = action.millis
        return one.startTimed("early", now + action.seconds * 1000, () => {
          one.early = 0
        })
      }
      case "NoReceipts": {
        const one = nodes[action.node]!
        one.receipts = false
        return one.startTimed("receipts", now + action.seconds * 1000, () => {
          one.receipts = true
        })
      }
      case "Empty":
        return void (nodes[action.node]!.times.empty = action.times)
      case "Unknown":
        return void (nodes[action.node]!.times.unknown = action.times)
      case "Mixed":
        return void (nodes[action.node]!.times.mixed = action.times)
      case "Short":
        return void (nodes[action.node]!.times[action.without] = action.times)
      case "Refuse":
        return void (nodes[action.node]!.times.refuse = action.times)
      case "Words":
        nodes[action.node]!.words = action.words
        return void (nodes[action.node]!.times.words = action.times)
      case "WrongLogs":
        return void (nodes[action.node]!.times[action.field] = action.times)
      case "LoseReply":
        return void (store.faults.lostReplies = action.times)
      case "FailStore":
        return void (store.faults.failures = action.times)
      case "FreezeStore":
        return void (store.faults.frozenUntil = now + action.seconds * 1000)
      case "ReplaceStore":
        return yield* action.operations === "all" ? store.empty : store.regress(action.operations)
      case "Restart":
        yield* end(action.who, false)
        return yield* launch(action.who)
      case "Kill":
        yield* end(action.who, true)
        return yield* launch(action.who)
      case "Refilter": {
        const both = running[1] !== undefined
        refiltered++
        for (const who of both ? [0, 1] : [0]) yield* end(who, false)
        for (const who of both ? [0, 1] : [0]) yield* launch(who)
        return
      }
      case "Join":
        return running[1] === undefined ? yield* launch(1) : undefined
      case "Leave":
        return yield* end(1, false)
      case "SetClock":
        return wall.shift(action.hours * 3_600_000)
      case "Wait":
        return yield* pass(action.millis)
    }
  })

  yield* launch(0)
  for (const { action, pause } of steps) {
    yield* act(action)
    // No node stays on a fork below the other's final block.
    for (const one of nodes) {
      if (one.node.chain.final.hash !== chain.final.hash) one.end("RangeTooLarge")
    }
    yield* pass(pause)
    yield* checkFinal
    for (const node of nodes) node.endExpired(yield* Monotonic.millis)
  }

  // All faults end, and the chain continues.
  for (const node of nodes) {
    node.heal()
    node.omitsFirst = false
  }
  Object.assign(store.faults, { failures: 0, lostReplies: 0, frozenUntil: 0 })
  if (running[0] === undefined) yield* launch(0)
  const highest = Math.max(...headers.map(({ number }) => number))
  while (chain.head.number <= highest) chain.extend(1)

  /** Whether everything is stored, and every block of the faulty period is final. */
  const isOver = Effect.map(
    empty.load(chain.id),
    (journal) =>
      journal?.head.hash === chain.head.hash &&
      journal.head.part === 0 &&
      (journal.final?.number ?? -1) >= highest,
  )
  let caughtUp = false
  for (let i = 0; i < recoveryDeadline * 5 && !caughtUp; i++) {
    chain.jump(i % 3, 0, 0, 0, 0, 0)
    yield* pass("12 seconds")
    yield* checkFinal
    caughtUp = yield* isOver
  }
  const entries = yield* Stream.runCollect(untrimmed.after(chain.id))
  const excused = new Set(nodes.flatMap((node) => [...node.undetected]))
  const unaudited = statuses.reduce((sum, status) => sum + status.count(blocksUnaudited), 0)
  const forgiven = unaudited > 0 ? excused : undefined
  const judged = yield* judge(untrimmed, filtered(chain, addresses), 0, true, excused, forgiven, "any")
  const corrected = statuses.reduce(
    (sum, status) => sum + status.count(eventsAuditedMissing) + status.count(eventsAuditedExtra),
    0,
  )
  // What the checks detect is never stored: only what they cannot detect is left to the audit.
  const unfounded =
    corrected > 0 && excused.size === 0 ? [`the audit counted ${corrected} logs that no node left out`] : []
  const faults = [...notFinal, ...unfounded, ...(yield* store.epochs.verdict), ...judged.faults]
  const verdict = { ...judged, faults }
  return {
    verdict,
    caughtUp,
    journal: JSON.stringify(entries),
    epochs: store.epochs.reported(),
  } satisfies Outcome as Outcome
}, Effect.scoped)

/** Why a run failed; `undefined` if it passed. */
export const complaint = ({ caughtUp, verdict }: Outcome): string | undefined => {
  if (!caughtUp)
    return `the head of the chain was not stored or finality stalled ${recoveryDeadline} minutes after the last fault`
  const { lost, doubled, faults } = verdict
  return lost + doubled + faults.length === 0
    ? undefined
    : `${lost} lost, ${doubled} doubled, ${faults.length} faults: ${faults.slice(0, 3).join("; ")}`
}

/** The same random numbers (jitter) in every run. */
export const withJitter = <A, E, R>(effect: Effect.Effect<A, E, R>) => Random.withSeed(effect, "jitter")
