/** What is final, whose word counts, and what happens where the answers differ: a row each. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { answers } from "../support/answers.ts"
import { refusal, unharmed } from "../support/dialect.ts"
import type { End, Row, Scene } from "../support/dialect.ts"
import { suite } from "../support/dialects.ts"
import { FakeChain } from "../support/FakeChain.ts"
import type { Intercept } from "../support/FakeNode.ts"
import { replayOf } from "../support/oracle.ts"

/** Answers for the finalized block. */
const finalized =
  (answer: () => unknown): Intercept =>
  (method, params, proceed) =>
    method === "eth_getBlockByNumber" && params[0] === "finalized" ? answer() : proceed()

/** Calls its latest block final, as Hardhat and ganache do; a developer takes some back. */
const latestIsFinal = ({ chain }: Scene) => {
  chain.finality = 0
}

const reverts = ({ chain }: Scene, block: number) => {
  if (block !== 8) return
  chain.revert(6)
  chain.jump(2, 1, 3, 1, 2, 1)
}

/** What is stored are blocks of one branch: those that were final first. */
const isOneBranch = (before: (number: number) => string) => (end: End) =>
  Effect.gen(function* () {
    const replay = yield* replayOf(end.store, end.chain.id)
    assert.deepStrictEqual(replay.faults, [])
    assert.isAbove(replay.blocks.length, 10)
    for (const { number, hash } of replay.blocks) assert.strictEqual(hash, before(number))
  })

/** Remembers which block was the first at its height. */
const firstBlocks = () => {
  const seen = new Map<number, string>()
  const see = (chain: FakeChain) => {
    for (const { number, hash } of chain.blocks()) if (!seen.has(number)) seen.set(number, hash)
  }
  return {
    watch: ({ chain }: Scene) => {
      see(chain)
      chain.listen(() => see(chain))
    },
    at: (number: number) => seen.get(number)!,
  }
}

const kept = firstBlocks()
const keptFinalized = firstBlocks()

/** A node follows a fork for good, which grows as the chain does. */
const forks = (node: Scene["node"], chain: FakeChain) => {
  const fork = chain.branch(5, 1, 2, 1, 2, 1)
  node.follow(fork)
  chain.listen(() => fork.extend(1))
}

/** Nobody disagrees any more, and finality has gone on. */
const agreesAgain = ({ reasons, status }: End) => {
  assert.deepStrictEqual(reasons, [])
  assert.isAtLeast(status.final!, 50)
}

const beginsSyncing = (node: Scene["node"], { chain }: Scene) => {
  node.lag = chain.head.number
  node.intercept = (method, _params, proceed) =>
    method === "eth_syncing"
      ? node.lag > 0 && { currentBlock: "0x0", highestBlock: "0x1e", startingBlock: "0x0" }
      : proceed()
}

const beginsAt = (least: number) => (end: End) =>
  Effect.map(end.store.load(end.chain.id), (journal) => assert.isAtLeast(journal!.start.number, least))

const rows: ReadonlyArray<Row> = [
  // -- A7: a side question
  {
    kind: "A7",
    name: "has null for the finalized block: the depth counts, and that is told [G-031]",
    node: ({ node }) => {
      node.intercept = finalized(() => null)
    },
    variables: { FINALITY_DEPTH: "12" },
    out: unharmed,
    also: ({ status }) => {
      assert.include(status.endpoints[0]!.capabilities!.limits, "no finalized tag")
      assert.isAtLeast(status.final!, 30)
    },
  },
  {
    kind: "A7",
    name: "has nothing final yet (a fresh geth), and reorganises below the depth: it is followed",
    node: ({ node, chain }) => {
      node.intercept = finalized(() => {
        throw refusal("geth finalized", chain.head)
      })
    },
    before: ({ chain }, block) => {
      if (block === 19) chain.fork(15, ...Array.from({ length: 15 }, () => 1))
    },
    variables: { FINALITY_DEPTH: "5" },
    finality: 1000,
    out: unharmed,
    also: ({ status }) => {
      assert.include(status.endpoints[0]!.capabilities!.limits, "nothing is final yet")
      assert.strictEqual(status.deepestReorg, 15)
    },
  },
  {
    kind: "A7",
    name: "replaces blocks that it called final (Hardhat, ganache): halted, and the setting is named",
    node: (scene) => {
      latestIsFinal(scene)
      kept.watch(scene)
    },
    before: reverts,
    out: unharmed,
    stops: /halted: .* was final as .*FINALITY=depth/,
    also: isOneBranch(kept.at),
  },
  {
    kind: "A7",
    name: "replaces blocks that it called final, whose tag is ignored",
    node: latestIsFinal,
    before: reverts,
    variables: { FINALITY: "depth", FINALITY_DEPTH: "20" },
    out: unharmed,
    also: ({ status }) => assert.isAtLeast(status.deepestReorg, 6),
  },
  {
    kind: "A7",
    name: "says what is final, and only that is stored",
    node: () => {},
    variables: { CONFIRMATIONS: "finalized" },
    finalized: true,
    // Asked every 15 s.
    out: { ...unharmed, stoodStill: 16 },
  },
  {
    kind: "A7",
    name: "has null for the finalized block, and only what is final is stored: the depth counts",
    node: ({ node }) => {
      node.intercept = finalized(() => null)
    },
    variables: { CONFIRMATIONS: "finalized", FINALITY_DEPTH: "12" },
    finality: 12,
    finalized: true,
    out: { ...unharmed, stoodStill: 16 },
  },
  {
    kind: "A7",
    name: "replaces blocks that it called final, and only what is final is stored: halted [G-032]",
    node: (scene) => {
      latestIsFinal(scene)
      keptFinalized.watch(scene)
    },
    before: reverts,
    variables: { CONFIRMATIONS: "finalized" },
    out: unharmed,
    stops: /halted: .* was final as .*FINALITY=depth/,
    also: isOneBranch(keptFinalized.at),
  },
  {
    kind: "A7",
    name: "answers block 0 with block 1 (Cosmos EVM): the setting is named [G-033]",
    node: ({ node, chain }) => {
      node.intercept = (method, params, proceed) =>
        method === "eth_getBlockByNumber" && params[0] === "0x0" ? headerOf(chain, 1) : proceed()
    },
    out: unharmed,
    stops: /START_BLOCK=1/,
  },
  {
    kind: "A7",
    name: "answers block 0 with block 1, and begins with block 1",
    node: ({ node, chain }) => {
      node.intercept = (method, params, proceed) =>
        method === "eth_getBlockByNumber" && params[0] === "0x0" ? headerOf(chain, 1) : proceed()
    },
    variables: { START_BLOCK: "1" },
    out: unharmed,
  },
  // -- A8: whose word counts
  {
    kind: "A8",
    name: "is on one chain while the other endpoint is on another for good: nothing is made final [G-034]",
    node: ({ two, chain }) => forks(two, chain),
    urls: "ws://one,ws://two",
    // One error, and one answer of the other endpoint's that is contradicted.
    out: { ...unharmed, blamed: 2 },
    also: (end) =>
      Effect.gen(function* () {
        assert.match(end.reasons.join(), /^endpoints disagree about final block \d+ .* nothing is made final/)
        assert.match(end.warnings.join(), /final block \d+ is another one at .* nothing is made final until/)
        assert.strictEqual(end.status.errors.unverified, 1)
        // What the metric says.
        assert.isTrue(end.status.finalDisagreement!.holds)
        const journal = yield* end.store.load(end.chain.id)
        assert.isAtMost(journal!.final?.number ?? 0, 25)
      }),
  },
  {
    kind: "A8",
    name: "is on one chain while the other endpoint, which connects two seconds later, is on another for good: nothing is made final",
    node: ({ two, chain }) => {
      two.acceptsAfter = 2000
      const other = new FakeChain({ id: chain.id, finality: 10, blockTime: 4 })
      // Other blocks than the chain's from the first on.
      other.fork(0, 1)
      other.fork(1, ...Array.from({ length: chain.head.number }, () => 1))
      two.follow(other)
      chain.listen(() => other.extend(1))
    },
    urls: "ws://one,ws://two",
    out: { ...unharmed, blamed: 2 },
    also: (end) =>
      Effect.map(end.store.load(end.chain.id), (journal) => {
        assert.isTrue(end.status.finalDisagreement!.holds)
        assert.isUndefined(journal!.final)
      }),
  },
  {
    kind: "A8",
    name: "is on one chain while the other endpoint is on another for good: nothing more is stored where only final blocks are",
    node: ({ two, chain }) => forks(two, chain),
    urls: "ws://one,ws://two",
    variables: { CONFIRMATIONS: "finalized" },
    out: unharmed,
    stops: /^endpoints disagree about final block \d+ .* nothing is made final/,
    also: (end) =>
      Effect.map(end.store.load(end.chain.id), (journal) => {
        assert.isAtLeast(journal!.head.number, 20)
        assert.isAtMost(journal!.head.number, 25)
      }),
  },
  {
    kind: "A8",
    name: "is on one chain while the other endpoint is on another for a while: then it goes on",
    node: ({ two, chain }) => forks(two, chain),
    before: ({ two, chain }, block) => {
      if (block === 12) two.follow(chain)
    },
    urls: "ws://one,ws://two",
    out: { ...unharmed, blamed: 2 },
    also: agreesAgain,
  },
  {
    kind: "A8",
    name: "is on one chain while the endpoint for history is on another for good: nothing of it is stored",
    node: ({ two, chain }) => forks(two, chain),
    rpc: "http://two",
    out: { ...unharmed, blamed: 2 },
    also: ({ reasons }) => assert.match(reasons.join(), /nothing is made final until they agree/),
  },
  {
    kind: "A8",
    name: "is on the chain of another endpoint while the one for history is on another: the majority decides",
    node: ({ three, chain }) => forks(three, chain),
    urls: "ws://one,ws://two",
    rpc: "http://three",
    out: { ...unharmed, blamed: 2 },
    also: ({ reasons, status }) => {
      assert.match(reasons.join(), /the majority decides/)
      assert.isAtLeast(status.final!, 50)
    },
  },
  {
    kind: "A8",
    name: "is on the chain of two endpoints while a third is on another: the majority decides",
    node: ({ three, chain }) => forks(three, chain),
    urls: "ws://one,ws://two,ws://three",
    out: { ...unharmed, blamed: 2 },
    also: ({ reasons, status }) => {
      assert.match(reasons.join(), /the majority decides/)
      assert.isAtLeast(status.final!, 50)
    },
  },
  {
    kind: "A8",
    name: "is alone on another chain than two endpoints: it is left, and the majority's chain is stored [G-035]",
    node: ({ node, chain }) => forks(node, chain),
    urls: "ws://one,ws://two,ws://three",
    // It is preferred, and left again each time that it says what is final.
    out: { ...unharmed, stoodStill: 20, connections: 4, blamed: 9 },
    atMost: true,
    also: ({ status }) => assert.isAtLeast(status.final!, 50),
  },
  {
    kind: "A8",
    name: "is syncing and at block 0 beside one that is not: the journal begins at the chain's head [G-036]",
    node: (scene) => beginsSyncing(scene.node, scene),
    urls: "ws://one,ws://two",
    variables: { START_BLOCK: "latest" },
    // It is left, as one that is behind.
    out: { ...unharmed, connections: 2, blamed: 1 },
    also: beginsAt(30),
  },
  {
    kind: "A8",
    name: "is syncing and at block 0, alone: the journal begins once it is not",
    node: (scene) => beginsSyncing(scene.node, scene),
    before: ({ node }, block) => {
      if (block === 10) node.lag = 0
    },
    variables: { START_BLOCK: "latest" },
    // Asked again and again, and told why.
    out: { ...unharmed, stoodStill: 80, connections: 8, blamed: 8 },
    atMost: true,
    also: (end) =>
      Effect.tap(beginsAt(30)(end), () =>
        Effect.sync(() => assert.match(end.status.failures[0]!.text, /the node is syncing and at block \d+/)),
      ),
  },
]

const headerOf = (chain: FakeChain, number: number) => {
  const { header } = chain.at(number)!
  const hex = (value: number) => `0x${value.toString(16)}`
  return {
    ...header,
    timestamp: hex(header.timestamp),
    number: hex(number),
    ...answers["cosmos block 0"]!.result,
  }
}

suite("a chain", rows)
