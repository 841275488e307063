/**
 * The real service against a chain, two nodes and a store that do everything that was ever seen to go wrong, in an order
 * that a seed decides. With a store in memory and under the test clock the same steps give the same journal, byte for byte.
 */
import { Clock, Effect, Random, Schema } from "effect"
import type { Duration } from "effect"
import { TestClock } from "effect/testing"
import type { Header } from "../../src/Domain.ts"
import { FakeChain } from "./FakeChain.ts"
import type { FakeBlock } from "./FakeChain.ts"
import { FakeNode, Refused, silence } from "./FakeNode.ts"
import * as FaultyStore from "./faultyStore.ts"
import { startIngestor, variablesFor } from "./ingestor.ts"
import type { Client, Ingestor } from "./ingestor.ts"
import { judge } from "./oracle.ts"
import type { Verdict } from "./oracle.ts"

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Sizes = Schema.Array(between(0, 200)).check(Schema.isMinLength(1), Schema.isMaxLength(3))
const Few = Schema.Array(between(0, 12)).check(Schema.isMinLength(1), Schema.isMaxLength(8))
const Which = between(0, 1)

/** For how long a node behaves so. */
const seconds = between(1, 30)

const often = <S>(schema: S): ReadonlyArray<S> => [schema, schema, schema, schema]

/** One thing that happens. What everything else is measured by, new blocks and forks, happens most. */
export const Action = Schema.Union([
  // -- the chain
  ...often(Schema.TaggedStruct("Extend", { logs: Sizes })),
  ...often(Schema.TaggedStruct("Jump", { logs: Few })),
  ...often(Schema.TaggedStruct("Fork", { depth: between(1, 64), longer: between(0, 3) })),
  Schema.TaggedStruct("Rollback", { depth: between(1, 64) }),
  // -- one node is on a fork of its own for a while
  ...often(
    Schema.TaggedStruct("Split", { node: Which, depth: between(1, 40), longer: between(-3, 3), seconds }),
  ),
  // -- what is announced
  Schema.TaggedStruct("Repeat", { node: Which, back: between(0, 9) }),
  Schema.TaggedStruct("Reorder", { node: Which }),
  Schema.TaggedStruct("Silence", { node: Which, seconds }),
  // -- connections
  Schema.TaggedStruct("Drop", { node: Which, when: Schema.Literals(["now", "before", "during", "after"]) }),
  Schema.TaggedStruct("Freeze", { node: Which, seconds }),
  Schema.TaggedStruct("Down", { node: Which, seconds }),
  Schema.TaggedStruct("ReturnBehind", { node: Which, blocks: between(1, 8), seconds }),
  // -- answers
  Schema.TaggedStruct("Lag", { node: Which, blocks: between(1, 8), seconds }),
  Schema.TaggedStruct("Empty", { node: Which, times: between(1, 6) }),
  Schema.TaggedStruct("Unknown", { node: Which, times: between(1, 6) }),
  Schema.TaggedStruct("Mixed", { node: Which, times: between(1, 4) }),
  Schema.TaggedStruct("Short", { node: Which, times: between(1, 4) }),
  Schema.TaggedStruct("Refuse", { node: Which, times: between(1, 4) }),
  // -- the store. One that is emptied or set back takes the traces of a fault with it: not too often.
  ...often(Schema.TaggedStruct("LoseReply", { times: between(1, 3) })),
  ...often(Schema.TaggedStruct("FailStore", { times: between(1, 5) })),
  Schema.TaggedStruct("FreezeStore", { seconds }),
  Schema.TaggedStruct("ReplaceStore", { operations: Schema.Literals([1, 2, 3, 5, 8, 13, "all"]) }),
  // -- the ingestors
  Schema.TaggedStruct("Restart", { who: Which }),
  Schema.TaggedStruct("Kill", { who: Which }),
  ...often(Schema.TaggedStruct("Join", {})),
  Schema.TaggedStruct("Leave", {}),
  // -- nothing
  Schema.TaggedStruct("Wait", { millis: between(0, 20_000) }),
])
export type Action = typeof Action.Type

/** An action, and the milliseconds until the next. */
export const Step = Schema.Struct({ action: Action, pause: between(0, 2500) })
export type Step = typeof Step.Type

/** How a store may be made wrong on purpose. */
export type Sabotage = (store: Client, faults: FaultyStore.StoreFaults) => Client

export interface Outcome {
  readonly verdict: Verdict
  /** Whether the store reached the head of the chain in time. */
  readonly caughtUp: boolean
  /** Every entry, to compare two runs. */
  readonly journal: string
}

/** Virtual minutes for everything to be right again once faults have stopped. */
const patience = 12

const requests = new Set(["eth_getLogs", "eth_getBlockByNumber", "eth_getBlockReceipts", "eth_subscribe"])

/** What a node does for a while. */
type Lasting = "silent" | "frozen" | "down" | "behind" | "split"

/** One node's faults: each answers the next requests in its own way. */
class Saboteur {
  readonly node: FakeNode
  readonly #stale: Map<number, FakeBlock>
  empty = 0
  unknown = 0
  mixed = 0
  short = 0
  refuse = 0
  drop: "before" | "during" | "after" | undefined
  /** What ends by itself, and when (clock milliseconds). */
  readonly #passing = new Map<Lasting, { readonly at: number; readonly end: () => void }>()

  constructor(node: FakeNode, stale: Map<number, FakeBlock>) {
    this.node = node
    this.#stale = stale
    node.intercept = (method, params, proceed) => this.#answer(method, params, proceed)
  }

  /** Behaves so until then, or longer where that was said before. */
  lasts(what: Lasting, until: number, end: () => void): void {
    this.#passing.set(what, { at: Math.max(until, this.#passing.get(what)?.at ?? 0), end })
  }

  /** Ends what has lasted long enough. */
  pass(now: number): void {
    for (const [what, { at }] of this.#passing) if (at <= now) this.end(what)
  }

  end(what: Lasting): void {
    this.#passing.get(what)?.end()
    this.#passing.delete(what)
  }

  heal(): void {
    this.empty = this.unknown = this.mixed = this.short = this.refuse = 0
    this.drop = undefined
    for (const what of this.#passing.keys()) this.end(what)
  }

  #answer(method: string, params: ReadonlyArray<unknown>, proceed: () => unknown): unknown {
    if (this.drop !== undefined && requests.has(method)) {
      const when = this.drop
      this.drop = undefined
      if (when === "before") {
        this.node.drop()
        return silence
      }
      const answer = proceed()
      // Its answer is lost on the way, or is the last that arrives.
      if (when === "during") this.node.drop()
      else queueMicrotask(() => this.node.drop(1001))
      return answer
    }
    if (method !== "eth_getLogs") return proceed()
    const filter = params[0] as {
      readonly blockHash?: string
      readonly fromBlock?: string
      readonly toBlock?: string
    }
    if (this.refuse > 0 && filter.blockHash === undefined) {
      this.refuse--
      throw new Refused(-32005, "query returned more than 10000 results")
    }
    if (this.unknown > 0 && filter.blockHash !== undefined) {
      this.unknown--
      throw new Refused(-32000, "unknown block")
    }
    const answer = proceed() as ReadonlyArray<{ readonly blockNumber: string; readonly blockHash: string }>
    // Of final blocks no header is fetched: what is left out of history is for the audit of another provider.
    if (filter.toBlock !== undefined && Number(filter.toBlock) <= this.node.chain.final.number) return answer
    if (this.empty > 0 && answer.length > 0) {
      this.empty--
      return []
    }
    if (this.short > 0 && answer.length > 1) {
      this.short--
      // Without the first log there is a hole. The last one may leave the bloom as it is: that is for the audit.
      return answer.slice(1)
    }
    if (this.mixed > 0 && filter.blockHash === undefined) {
      const heights = Array.from(
        { length: Number(filter.toBlock) - Number(filter.fromBlock) + 1 },
        (_, i) => Number(filter.fromBlock) + i,
      )
      const isStale = (height: number) => {
        const block = this.#stale.get(height)
        return block !== undefined && !this.node.chain.isCanonical(block)
      }
      if (!heights.some(isStale)) return answer
      this.mixed--
      return heights.flatMap((height) =>
        isStale(height)
          ? this.node.logsOf(this.#stale.get(height)!)
          : answer.filter((log) => Number(log.blockNumber) === height),
      )
    }
    return answer
  }
}

/** Runs the steps, stops all faults, and waits until the service has made up for them. */
export const simulate = Effect.fnUntraced(function* (
  steps: ReadonlyArray<Step>,
  empty: Client,
  sabotage: Sabotage = (store) => store,
  pass: (duration: Duration.Input) => Effect.Effect<void> = TestClock.adjust,
) {
  const chain = new FakeChain({ finality: 80 })
  const store = FaultyStore.make(empty, chain.id)
  const stale = new Map<number, FakeBlock>()
  const hosts = { one: new FakeNode(chain), two: new FakeNode(chain) }
  const nodes = [new Saboteur(hosts.one, stale), new Saboteur(hosts.two, stale)] as const
  const variables = variablesFor({ devnet: [chain, "one,two"] })
  const other = variablesFor({ devnet: [chain, "two,one"] })
  const running: Array<{ readonly ingestor: Ingestor; dead: boolean } | undefined> = [undefined, undefined]

  const launch = Effect.fnUntraced(function* (who: number) {
    const state = { dead: false }
    const client = sabotage(
      store.client(() => state.dead),
      store.faults,
    )
    const ingestor = yield* startIngestor(client, hosts, who === 0 ? variables : other)
    running[who] = Object.assign(state, { ingestor })
  })
  const end = Effect.fnUntraced(function* (who: number, violently: boolean) {
    const one = running[who]
    if (one === undefined) return
    one.dead = violently
    running[who] = undefined
    yield* Effect.forkDetach(one.ingestor.stop, { startImmediately: true })
  })

  /** The blocks that a fork of this depth replaces. */
  const remember = (depth: number) => {
    for (let number = Math.max(chain.head.number - depth + 1, 0); number <= chain.head.number; number++) {
      stale.set(number, chain.at(number)!)
    }
  }
  const headers: Array<Header> = [chain.head]
  chain.listen((header) => void headers.push(header))

  const act = Effect.fnUntraced(function* (action: Action) {
    const now = yield* Clock.currentTimeMillis
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
        return nodes[action.node]!.lasts("silent", now + action.seconds * 1000, () => {
          node.announces = true
        })
      }
      case "Drop":
        if (action.when === "now") return nodes[action.node]!.node.drop()
        return void (nodes[action.node]!.drop = action.when)
      case "Freeze": {
        const { node } = nodes[action.node]!
        node.answers = false
        return nodes[action.node]!.lasts("frozen", now + action.seconds * 1000, () => {
          node.answers = true
        })
      }
      case "Down": {
        const { node } = nodes[action.node]!
        node.up = false
        node.drop()
        return nodes[action.node]!.lasts("down", now + action.seconds * 1000, () => {
          node.up = true
        })
      }
      case "Lag":
      case "ReturnBehind": {
        const { node } = nodes[action.node]!
        node.lag = action.blocks
        if (action._tag === "ReturnBehind") node.drop()
        return nodes[action.node]!.lasts("behind", now + action.seconds * 1000, () => {
          node.lag = 0
        })
      }
      case "Split": {
        const { node } = nodes[action.node]!
        nodes[action.node]!.end("split")
        const sizes = Array.from({ length: Math.max(action.depth + action.longer, 1) }, (_, i) => (i * 3) % 7)
        const view = chain.branch(action.depth, ...sizes)
        headers.push(view.head)
        node.follow(view)
        return nodes[action.node]!.lasts("split", now + action.seconds * 1000, () => node.follow(chain))
      }
      case "Empty":
        return void (nodes[action.node]!.empty = action.times)
      case "Unknown":
        return void (nodes[action.node]!.unknown = action.times)
      case "Mixed":
        return void (nodes[action.node]!.mixed = action.times)
      case "Short":
        return void (nodes[action.node]!.short = action.times)
      case "Refuse":
        return void (nodes[action.node]!.refuse = action.times)
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
      case "Join":
        return running[1] === undefined ? yield* launch(1) : undefined
      case "Leave":
        return yield* end(1, false)
      case "Wait":
        return yield* pass(action.millis)
    }
  })

  yield* launch(0)
  for (const { action, pause } of steps) {
    yield* act(action)
    // No node is on a fork of blocks that are final elsewhere.
    for (const one of nodes) {
      if (one.node.chain.at(chain.final.number)?.header.hash !== chain.final.hash) one.end("split")
    }
    yield* pass(pause)
    for (const node of nodes) node.pass(yield* Clock.currentTimeMillis)
  }

  // Everything works again, and the chain goes on.
  for (const node of nodes) node.heal()
  Object.assign(store.faults, { failures: 0, lostReplies: 0, frozenUntil: 0 })
  if (running[0] === undefined) yield* launch(0)
  const highest = Math.max(...headers.map(({ number }) => number))
  while (chain.head.number <= highest) chain.extend(1)

  const isThere = Effect.map(
    empty.load(chain.id),
    (journal) => journal?.head.hash === chain.head.hash && journal.head.part === 0,
  )
  let caughtUp = false
  for (let i = 0; i < patience * 5 && !caughtUp; i++) {
    chain.extend(i % 3)
    yield* pass("12 seconds")
    caughtUp = yield* isThere
  }
  const entries = yield* empty.read(chain.id, undefined, 1_000_000)
  const verdict = yield* judge(empty, chain)
  return { verdict, caughtUp, journal: JSON.stringify(entries) } satisfies Outcome as Outcome
}, Effect.scoped)

/** What a run proves, or why it does not. */
export const complaint = ({ caughtUp, verdict }: Outcome): string | undefined => {
  if (!caughtUp) return `it was not at the head of the chain ${patience} minutes after the last fault`
  const { lost, doubled, faults } = verdict
  return lost + doubled + faults.length === 0
    ? undefined
    : `${lost} lost, ${doubled} doubled, ${faults.length} faults: ${faults.slice(0, 3).join("; ")}`
}

/** The same random numbers (jitter) in every run. */
export const withJitter = <A, E, R>(effect: Effect.Effect<A, E, R>) => Random.withSeed(effect, "jitter")
