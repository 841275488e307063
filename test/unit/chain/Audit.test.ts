/** The second look, seen from the service: what verification cannot catch is put right before it is final. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Hex } from "../../../src/Domain.ts"
import { hex } from "../../../src/endpoint/Decode.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode, Refused, silence } from "../../support/FakeNode.ts"
import type { Intercept } from "../../support/FakeNode.ts"
import { hash } from "../../support/blocks.ts"
import { caughtUp, eventually, memoryStore, startIngestor, variablesFor } from "../../support/ingestor.ts"
import type { Client, Ingestor } from "../../support/ingestor.ts"
import { replayOf } from "../../support/oracle.ts"

interface World {
  readonly chain: FakeChain
  readonly one: FakeNode
  readonly two: FakeNode
  readonly store: Client
  readonly start: (variables?: Record<string, string>) => Effect.Effect<Ingestor, unknown, Scope.Scope>
}

const world = (title: string, body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 6, contracts })
      const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
      const store = yield* memoryStore()
      const start = (variables = {}) =>
        startIngestor(store, { one, two }, { ...variablesFor({ devnet: [chain, "one,two"] }), ...variables })
      yield* body({ chain, one, two, store, start })
    }),
  )

const blocks = (chain: FakeChain, count: number, logs = 4) =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) {
      chain.extend(logs)
      yield* TestClock.adjust("12 seconds")
    }
  })

const contracts = [1, 2, 3].map((i) => hash("contract", i).slice(0, 42) as Hex)

/** A filter that lets all logs through; but under a filter their numbers prove nothing. */
const everything = { ADDRESSES: contracts.join(",") }

type WireLog = { readonly blockNumber: string; readonly logIndex: string }

/** Answers with the logs changed of those blocks that are chosen. */
const lying =
  (
    isChosen: (number: number) => boolean,
    change: (logs: ReadonlyArray<WireLog>) => ReadonlyArray<WireLog>,
  ): Intercept =>
  (method, _params, proceed) => {
    const answer = proceed()
    if (method !== "eth_getLogs") return answer
    const logs = answer as ReadonlyArray<WireLog>
    const numbers = [...new Set(logs.map(({ blockNumber }) => Number(blockNumber)))]
    return numbers.flatMap((number) => {
      const own = logs.filter(({ blockNumber }) => Number(blockNumber) === number)
      return isChosen(number) ? change(own) : own
    })
  }

/** Keeps the logs of one block back as a whole, and has no receipts: nothing else can be asked about it. */
const keepingBack = (wrong: number): Intercept => {
  const lie = lying(
    (number) => number === wrong,
    () => [],
  )
  return (method, params, proceed) => {
    if (method === "eth_getBlockReceipts") throw new Refused(-32601, "the method does not exist")
    return lie(method, params, proceed)
  }
}

/** Leaves the first log of one block out. */
const leavingOut = (wrong: number) =>
  lying(
    (number) => number === wrong,
    (logs) => logs.slice(1),
  )

const third = (number: number) => number % 3 === 0

describe("the second look", () => {
  world(
    "adds what an endpoint left out under a filter, and names it [G-048]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        one.intercept = lying(third, (logs) => logs.toSpliced(1, 1))
        const { status } = yield* start(everything)
        yield* blocks(chain, 30)
        assert.isAbove(status.auditedMissing, 3)
        assert.strictEqual(status.auditedExtra, 0)
        assert.isAbove(status.endpoints[0]!.contradicted, 3)
        assert.strictEqual(status.endpoints[1]!.contradicted, 0)
        assert.match(status.failures.map(({ text }) => text).join(), /one:80: contradicted/)
        one.intercept = (_method, _params, proceed) => proceed()
        yield* blocks(chain, 10)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.unaudited, 0)
      }),
  )

  world("adds a block that an endpoint kept back as a whole [G-049]", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      one.intercept = keepingBack(9)
      const { status } = yield* start(everything)
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.auditedMissing, 4)
    }),
  )

  const away = (node: FakeNode) => {
    node.up = false
    node.drop()
  }

  world(
    "asks somebody else than who told a block, whoever is in use now [G-050]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        two.intercept = leavingOut(14)
        const { status } = yield* start(everything)
        yield* blocks(chain, 5)
        one.drop()
        yield* blocks(chain, 9)
        assert.strictEqual(status.endpoint, status.endpoints[1])
        yield* eventually("the first is in use again", () => status.endpoint === status.endpoints[0])
        assert.isBelow(status.final!, 14)
        yield* blocks(chain, 15)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.auditedMissing, 1)
        assert.isAbove(status.endpoints[1]!.contradicted, 0)
        assert.strictEqual(status.endpoints[0]!.contradicted, 0)
      }),
  )

  world("asks two where it is not known who told a block [G-051]", ({ chain, two, store, start }) =>
    Effect.gen(function* () {
      two.intercept = leavingOut(9)
      const before = yield* start({ ...everything, DEVNET_WS_URL: "ws://two" })
      yield* blocks(chain, 10)
      yield* before.stop
      const { status } = yield* start(everything)
      yield* blocks(chain, 20)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.auditedMissing, 1)
    }),
  )

  world(
    "waits for another one that is away, and asks nobody twice [G-052]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        one.intercept = keepingBack(9)
        const { status } = yield* start(everything)
        yield* blocks(chain, 3)
        away(two)
        yield* blocks(chain, 35)
        assert.strictEqual(status.unaudited, 0)
        assert.isBelow(status.final!, 9)
        two.up = true
        yield* blocks(chain, 15)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.auditedMissing, 4)
        assert.strictEqual(status.unaudited, 0)
      }),
  )

  world(
    "is taken before history makes blocks final that were not looked at [G-059]",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        one.intercept = keepingBack(9)
        const { status } = yield* start(everything)
        yield* blocks(chain, 10)
        away(one)
        away(two)
        chain.extend(...Array.from({ length: 30 }, () => 4))
        two.up = true
        yield* blocks(chain, 10)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.auditedMissing, 4)
      }),
  )

  world("finds what each of two has left out [G-053]", ({ chain, one, two, store, start }) =>
    Effect.gen(function* () {
      one.intercept = leavingOut(10)
      two.intercept = leavingOut(14)
      const { status } = yield* start(everything)
      yield* blocks(chain, 11)
      one.drop()
      yield* blocks(chain, 4)
      assert.strictEqual(status.endpoint, status.endpoints[1])
      assert.isBelow(status.final!, 10)
      away(one)
      away(two)
      chain.extend(...Array.from({ length: 30 }, () => 4))
      one.up = two.up = true
      yield* blocks(chain, 10)
      yield* caughtUp(store, chain, status, 0, false)
      // The higher one is put right while the lower one is.
      assert.include([1, 2], status.auditedMissing)
      assert.strictEqual(status.unaudited, 0)
    }),
  )

  world(
    "asks the only one there is in the end, though that is not enough [G-054]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        one.intercept = leavingOut(9)
        const { status } = yield* start(everything)
        yield* blocks(chain, 10)
        away(one)
        yield* blocks(chain, 80)
        assert.strictEqual(status.auditedMissing, 1)
        assert.isAbove(status.unaudited, 0)
        assert.isAtMost(status.unaudited, chain.head.number)
        yield* caughtUp(store, chain, status, 0, false)
      }),
  )

  world("takes nothing away for one voice alone [G-055]", ({ chain, one, two, store, start }) =>
    Effect.gen(function* () {
      two.intercept = leavingOut(9)
      // Who told the block cannot say it again.
      one.intercept = (method, params, proceed) => {
        const isAsked =
          /Logs|Receipt/.test(method) && JSON.stringify(params).includes(chain.at(9)?.header.hash ?? "none")
        if (isAsked && chain.head.number > 9) throw new Refused(-32005, "too many requests")
        return proceed()
      }
      const { status } = yield* start(everything)
      yield* blocks(chain, 30)
      const replay = yield* caughtUp(store, chain, status)
      assert.strictEqual(replay.removed, 0)
      assert.strictEqual(status.auditedExtra, 0)
      assert.isAbove(status.endpoints[1]!.contradicted, 0)
      assert.strictEqual(status.endpoints[0]!.contradicted, 0)
    }),
  )

  it.effect("writes a block anew once, also where the head is final and the chain stands still [G-058]", () =>
    Effect.gen(function* () {
      const chain = new FakeChain({ finality: 0, contracts })
      const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
      const store = yield* memoryStore()
      one.intercept = leavingOut(9)
      const variables = { ...variablesFor({ devnet: [chain, "one,two"] }), ...everything }
      const { status } = yield* startIngestor(store, { one, two }, variables)
      yield* blocks(chain, 8)
      yield* TestClock.adjust("2 minutes")
      yield* blocks(chain, 1)
      yield* TestClock.adjust("2 minutes")
      const replay = yield* caughtUp(store, chain, status, 0, false)
      assert.isAtMost(replay.removed, 3)
      assert.strictEqual(status.auditedMissing, 1)
    }),
  )

  world("waits for the other one also where blocks are final before they are stored [G-057]", (world) =>
    Effect.gen(function* () {
      const { chain, one, two, start } = world
      one.intercept = leavingOut(9)
      const { status } = yield* start({ ...everything, CONFIRMATIONS: "8" })
      yield* blocks(chain, 17)
      away(two)
      yield* blocks(chain, 3)
      two.up = true
      yield* blocks(chain, 20)
      assert.strictEqual(status.unaudited, 0)
      assert.strictEqual(status.auditedMissing, 1)
      one.intercept = (_method, _params, proceed) => proceed()
      yield* eventually("it stands where it is to stand", () => status.stored === chain.head.number - 8)
    }),
  )

  world("remembers what it found, if nobody says it again when it is written [G-056]", (world) =>
    Effect.gen(function* () {
      const { chain, one, two, store, start } = world
      one.intercept = leavingOut(9)
      const { status } = yield* start(everything)
      two.intercept = (method, _params, proceed) => {
        if (/Logs|Receipt/.test(method) && status.auditedMissing > 0)
          throw new Refused(-32005, "too many requests")
        return proceed()
      }
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.auditedMissing, 1)
    }),
  )

  world("a block that was half written under a filter begins anew [G-060]", ({ chain, store, start }) =>
    Effect.gen(function* () {
      chain.extend(1, 1)
      const first = yield* start(everything)
      yield* caughtUp(store, chain, first.status)
      yield* first.stop
      const { head: expected, filter } = (yield* store.load(chain.id))!
      chain.extend(3500)
      const [big] = chain.blocks(3)
      // A log was left out of the answer that was being written.
      const slice = { ...big!, logs: big!.logs.toSpliced(5, 1).slice(0, 1000), whole: false }
      yield* store.push(chain.id, filter, { _tag: "Push", expected, blocks: [slice], final: false })
      const { status } = yield* start(everything)
      const replay = yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(replay.removed, 1000)
    }),
  )

  world("finds the last log of a block whose bloom proves nothing", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      chain.blooms = false
      one.intercept = lying(
        (number) => number === 5,
        (logs) => logs.slice(0, -1),
      )
      const { status } = yield* start()
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.auditedMissing, 1)
    }),
  )

  world("takes away what was never in a block", ({ chain, one, store, start }) =>
    Effect.gen(function* () {
      one.intercept = lying(
        (number) => number === 7 && chain.head.number === 7,
        (logs) => [...logs, { ...logs.at(-1)!, logIndex: hex(99) }],
      )
      const { status } = yield* start(everything)
      yield* blocks(chain, 30)
      yield* caughtUp(store, chain, status, 0, false)
      assert.strictEqual(status.auditedExtra, 1)
      assert.isAbove((yield* replayOf(store, chain.id)).removed, 0)
    }),
  )

  world(
    "leaves alone what was read with another filter, and counts it as not looked at [G-201]",
    ({ chain, store, start }) =>
      Effect.gen(function* () {
        const before = yield* start({ ADDRESSES: contracts[0]! })
        yield* blocks(chain, 12)
        yield* before.stop
        const { status } = yield* start(everything)
        yield* blocks(chain, 20)
        assert.isAbove(status.final!, 12)
        assert.strictEqual((yield* replayOf(store, chain.id)).removed, 0)
        assert.strictEqual(status.auditedMissing + status.auditedExtra, 0)
        assert.isAbove(status.unaudited, 0)
        assert.isAtMost(status.unaudited, 12)
      }),
  )

  world(
    "finds what another ingestor has left out that wrote a block first [G-063]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        const liar = new FakeNode(chain)
        liar.intercept = leavingOut(9)
        const variables = { ...variablesFor({ devnet: [chain, "liar"] }), ...everything }
        const other = yield* startIngestor(store, { liar }, variables)
        const { status } = yield* start(everything)
        // It is later than the other one.
        one.intercept = (method, _params, proceed) => (method === "eth_getLogs" ? silence : proceed())
        yield* blocks(chain, 8)
        one.intercept = (_method, _params, proceed) => proceed()
        yield* blocks(chain, 4)
        const { published } = other.status
        yield* other.stop
        yield* blocks(chain, 20)
        assert.isAbove(published, 30)
        assert.isAbove(status.deduplicated, 0)
        yield* caughtUp(store, chain, status, 0, false)
        assert.strictEqual(status.auditedMissing, 1)
      }),
  )

  world("is not misled when the other one is wrong: nothing is undone", ({ chain, two, store, start }) =>
    Effect.gen(function* () {
      two.intercept = lying(third, (logs) => logs.slice(1))
      const { status } = yield* start(everything)
      yield* blocks(chain, 30)
      const replay = yield* caughtUp(store, chain, status)
      assert.strictEqual(replay.removed, 0)
      assert.isAbove(status.endpoints[1]!.contradicted, 3)
      assert.strictEqual(status.endpoints[0]!.contradicted, 0)
      assert.strictEqual(status.auditedMissing + status.auditedExtra, 0)
    }),
  )

  world(
    "compares history before it is stored, so that nothing of it has to be undone [G-064]",
    ({ chain, one, store, start }) =>
      Effect.gen(function* () {
        chain.extend(...Array.from({ length: 300 }, (_, i) => i % 5))
        one.intercept = lying(
          (number) => third(number) && number < 280,
          () => [],
        )
        const { status } = yield* start(everything)
        yield* blocks(chain, 2)
        const replay = yield* caughtUp(store, chain, status)
        assert.strictEqual(replay.removed, 0)
        assert.strictEqual(status.unaudited, 0)
        assert.isAbove(status.endpoints[0]!.contradicted, 50)
      }),
  )

  world(
    "is waited for ten minutes, and then the blocks are counted as not looked at [G-065]",
    ({ chain, two, store, start }) =>
      Effect.gen(function* () {
        two.intercept = (method, _params, proceed) => {
          if (/Logs|Receipt/.test(method))
            throw new Refused(-32000, "Archive requests require a personal token")
          return proceed()
        }
        const { status } = yield* start(everything)
        yield* blocks(chain, 40)
        assert.isBelow(status.final ?? 0, 10)
        assert.strictEqual(status.unaudited, 0)
        yield* blocks(chain, 40)
        assert.isAbove(status.unaudited, 5)
        assert.isAbove(status.final!, 5)
        yield* caughtUp(store, chain, status)
      }),
  )

  world(
    "asks nothing when it is off, and a single endpoint once more for each step of finality",
    ({ chain, one, two, store, start }) =>
      Effect.gen(function* () {
        const off = yield* start({ ...everything, AUDIT: "off" })
        yield* blocks(chain, 20)
        assert.isUndefined(two.requests.get("eth_getLogs"))
        assert.isAtLeast(off.status.final!, chain.final.number - 5)
        yield* off.stop
        const alone = yield* start({ ...everything, DEVNET_WS_URL: "ws://one" })
        const before = one.requests.get("eth_getLogs")!
        yield* blocks(chain, 10)
        assert.strictEqual(one.requests.get("eth_getLogs")! - before, 10 + 2)
        yield* caughtUp(store, chain, alone.status)
        assert.strictEqual(alone.status.unaudited, 0)
      }),
  )
})
