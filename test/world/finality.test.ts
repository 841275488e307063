/** Which block is final, by which endpoints, and what happens if they disagree: a row each. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { answers } from "../support/answers.ts"
import { refusal, unaffected } from "../support/dialect.ts"
import type { End, Row, Scene } from "../support/dialect.ts"
import { suite } from "../support/dialects.ts"
import { FakeChain } from "../support/FakeChain.ts"
import type { Intercept } from "../support/FakeNode.ts"
import { replayOf } from "../support/oracle.ts"

/** Intercepts requests for the finalized block. */
const finalized =
  (answer: () => unknown): Intercept =>
  (method, params, proceed) =>
    method === "eth_getBlockByNumber" && params[0] === "finalized" ? answer() : proceed()

/** Reports its latest block as final, as Hardhat and ganache do; a developer reverts some. */
const latestIsFinal = ({ chain }: Scene) => {
  chain.finality = 0
}

const reverts = ({ chain }: Scene, block: number) => {
  if (block !== 8) return
  chain.revert(6)
  chain.jump(2, 1, 3, 1, 2, 1)
}

/** Asserts that the stored blocks are of one branch: those that were final first. */
const isOneBranch = (before: (number: number) => string) => (end: End) =>
  Effect.gen(function* () {
    const replay = yield* replayOf(end.store, end.chain.id)
    assert.deepStrictEqual(replay.faults, [])
    assert.isAbove(replay.blocks.length, 10)
    for (const { number, hash } of replay.blocks) assert.strictEqual(hash, before(number))
  })

/** Records the first block at each height. */
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

/** Puts a node on a fork that grows with the chain. */
const forks = (node: Scene["node"], chain: FakeChain) => {
  const fork = chain.branch(5, 1, 2, 1, 2, 1)
  node.follow(fork)
  chain.listen(() => fork.extend(1))
}

/** Asserts that the endpoints agree again, and finality has advanced. */
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
  // -- A7: the finalized tag
  {
    kind: "A7",
    name: "returns null for the finalized block: uses FINALITY_DEPTH and reports it [G-031]",
    node: ({ node }) => {
      node.intercept = finalized(() => null)
    },
    variables: { FINALITY_DEPTH: "12" },
    out: unaffected,
    also: ({ status }) => {
      assert.include(status.endpoints[0]!.capabilities!.limits, "no finalized tag")
      assert.isAtLeast(status.final!, 30)
    },
  },
  {
    kind: "A7",
    name: "has no final block yet (a fresh geth) and reorganises below FINALITY_DEPTH: follows the reorg",
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
    out: unaffected,
    also: ({ status }) => {
      assert.include(status.endpoints[0]!.capabilities!.limits, "nothing is final yet")
      assert.strictEqual(status.deepestReorg, 15)
    },
  },
  {
    kind: "A7",
    name: "replaces final blocks (Hardhat, ganache): halts and names the setting",
    node: (scene) => {
      latestIsFinal(scene)
      kept.watch(scene)
    },
    before: reverts,
    out: unaffected,
    stops: /halted: .* was final as .*FINALITY=depth/,
    also: isOneBranch(kept.at),
  },
  {
    kind: "A7",
    name: "replaces final blocks, with FINALITY=depth: follows the reorg",
    node: latestIsFinal,
    before: reverts,
    variables: { FINALITY: "depth", FINALITY_DEPTH: "20" },
    out: unaffected,
    also: ({ status }) => assert.isAtLeast(status.deepestReorg, 6),
  },
  {
    kind: "A7",
    name: "serves the finalized tag, with CONFIRMATIONS=finalized: stores only final blocks",
    node: () => {},
    variables: { CONFIRMATIONS: "finalized" },
    finalized: true,
    // The final block is fetched every 15 s.
    out: { ...unaffected, maxDelay: 16 },
  },
  {
    kind: "A7",
    name: "returns null for the finalized block, with CONFIRMATIONS=finalized: uses FINALITY_DEPTH",
    node: ({ node }) => {
      node.intercept = finalized(() => null)
    },
    variables: { CONFIRMATIONS: "finalized", FINALITY_DEPTH: "12" },
    finality: 12,
    finalized: true,
    out: { ...unaffected, maxDelay: 16 },
  },
  {
    kind: "A7",
    name: "replaces final blocks, with CONFIRMATIONS=finalized: halts [G-032]",
    node: (scene) => {
      latestIsFinal(scene)
      keptFinalized.watch(scene)
    },
    before: reverts,
    variables: { CONFIRMATIONS: "finalized" },
    out: unaffected,
    stops: /halted: .* was final as .*FINALITY=depth/,
    also: isOneBranch(keptFinalized.at),
  },
  {
    kind: "A7",
    name: "returns block 1 for block 0 (Cosmos EVM): stops and names the setting [G-033]",
    node: ({ node, chain }) => {
      node.intercept = (method, params, proceed) =>
        method === "eth_getBlockByNumber" && params[0] === "0x0" ? headerOf(chain, 1) : proceed()
    },
    out: unaffected,
    stops: /START_BLOCK=1/,
  },
  {
    kind: "A7",
    name: "returns block 1 for block 0, with START_BLOCK=1: stores the chain",
    node: ({ node, chain }) => {
      node.intercept = (method, params, proceed) =>
        method === "eth_getBlockByNumber" && params[0] === "0x0" ? headerOf(chain, 1) : proceed()
    },
    variables: { START_BLOCK: "1" },
    out: unaffected,
  },
  // -- A8: disagreement between endpoints
  {
    kind: "A8",
    name: "is on another fork than the second endpoint permanently: finalizes nothing [G-034]",
    node: ({ two, chain }) => forks(two, chain),
    urls: "ws://one,ws://two",
    // One error, and one audit mismatch of the other endpoint.
    out: { ...unaffected, errorCount: 2 },
    also: (end) =>
      Effect.gen(function* () {
        assert.match(end.reasons.join(), /^endpoints disagree about final block \d+ .* nothing is finalized/)
        assert.match(end.warnings.join(), /final block \d+ differs at .* nothing is finalized until/)
        assert.strictEqual(end.status.errors.unverified, 1)
        // The source of the metric.
        assert.isTrue(end.status.finalDisagreement!.holds)
        const journal = yield* end.store.load(end.chain.id)
        assert.isAtMost(journal!.final?.number ?? 0, 25)
      }),
  },
  {
    kind: "A8",
    name: "is on another chain than the second endpoint, which connects two seconds later: finalizes nothing",
    node: ({ two, chain }) => {
      two.acceptsAfter = 2000
      const other = new FakeChain({ id: chain.id, finality: 10, blockTime: 4 })
      // Its blocks differ from the first on.
      other.fork(0, 1)
      other.fork(1, ...Array.from({ length: chain.head.number }, () => 1))
      two.follow(other)
      chain.listen(() => other.extend(1))
    },
    urls: "ws://one,ws://two",
    out: { ...unaffected, errorCount: 2 },
    also: (end) =>
      Effect.map(end.store.load(end.chain.id), (journal) => {
        assert.isTrue(end.status.finalDisagreement!.holds)
        assert.isUndefined(journal!.final)
      }),
  },
  {
    kind: "A8",
    name: "is on another fork than the second endpoint permanently, with CONFIRMATIONS=finalized: stops storing",
    node: ({ two, chain }) => forks(two, chain),
    urls: "ws://one,ws://two",
    variables: { CONFIRMATIONS: "finalized" },
    out: unaffected,
    stops: /^endpoints disagree about final block \d+ .* nothing is finalized/,
    also: (end) =>
      Effect.map(end.store.load(end.chain.id), (journal) => {
        assert.isAtLeast(journal!.head.number, 20)
        assert.isAtMost(journal!.head.number, 25)
      }),
  },
  {
    kind: "A8",
    name: "is on another fork than the second endpoint for a while: resumes finalizing once they agree",
    node: ({ two, chain }) => forks(two, chain),
    before: ({ two, chain }, block) => {
      if (block === 12) two.follow(chain)
    },
    urls: "ws://one,ws://two",
    out: { ...unaffected, errorCount: 2 },
    also: agreesAgain,
  },
  {
    kind: "A8",
    name: "is on another fork than the RPC endpoint permanently: stores none of that fork",
    node: ({ two, chain }) => forks(two, chain),
    rpc: "http://two",
    out: { ...unaffected, errorCount: 2 },
    also: ({ reasons }) => assert.match(reasons.join(), /nothing is finalized until they agree/),
  },
  {
    kind: "A8",
    name: "agrees with a second endpoint against the RPC endpoint: follows the majority",
    node: ({ three, chain }) => forks(three, chain),
    urls: "ws://one,ws://two",
    rpc: "http://three",
    out: { ...unaffected, errorCount: 2 },
    also: ({ reasons, status }) => {
      assert.match(reasons.join(), /the majority decides/)
      assert.isAtLeast(status.final!, 50)
    },
  },
  {
    kind: "A8",
    name: "agrees with a second endpoint against a third: follows the majority",
    node: ({ three, chain }) => forks(three, chain),
    urls: "ws://one,ws://two,ws://three",
    out: { ...unaffected, errorCount: 2 },
    also: ({ reasons, status }) => {
      assert.match(reasons.join(), /the majority decides/)
      assert.isAtLeast(status.final!, 50)
    },
  },
  {
    kind: "A8",
    name: "is on another fork than two endpoints: fails over and stores the majority's chain [G-035]",
    node: ({ node, chain }) => forks(node, chain),
    urls: "ws://one,ws://two,ws://three",
    // It is preferred, and failed over from again each time it reports a final block.
    out: { ...unaffected, maxDelay: 20, connections: 4, errorCount: 9 },
    atMost: true,
    also: ({ status }) => assert.isAtLeast(status.final!, 50),
  },
  {
    kind: "A8",
    name: "is syncing and at block 0 beside a synced one: begins at the chain's head [G-036]",
    node: (scene) => beginsSyncing(scene.node, scene),
    urls: "ws://one,ws://two",
    variables: { START_BLOCK: "latest" },
    // It is failed over from, as it lags.
    out: { ...unaffected, connections: 2, errorCount: 1 },
    also: beginsAt(30),
  },
  {
    kind: "A8",
    name: "is syncing and at block 0, alone: begins once it is synced",
    node: (scene) => beginsSyncing(scene.node, scene),
    before: ({ node }, block) => {
      if (block === 10) node.lag = 0
    },
    variables: { START_BLOCK: "latest" },
    // It is retried, and the reason is reported.
    out: { ...unaffected, maxDelay: 80, connections: 8, errorCount: 8 },
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

suite("finalizes only blocks that endpoints agree on with", rows)
