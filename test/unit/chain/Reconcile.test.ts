/** Drives `reconcile` over a chain in memory that reorgs, shortens and repeats itself, and applies its moves to a journal. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import type { Header } from "../../../src/Domain.ts"
import type { BlockRef } from "../../../src/chain/ForkChoice.ts"
import { ForkStandoff } from "../../../src/chain/ForkStandoff.ts"
import { PendingJournal } from "../../../src/chain/PendingJournal.ts"
import type { ChainStep } from "../../../src/chain/PendingJournal.ts"
import { RecentHeaders } from "../../../src/chain/RecentHeaders.ts"
import * as Reconcile from "../../../src/chain/Reconcile.ts"
import { Capabilities } from "../../../src/endpoint/Capabilities.ts"
import type { RpcClient } from "../../../src/endpoint/RpcClient.ts"
import type { LogSource } from "../../../src/logs/LogSource.ts"
import { callLimits, emptyJournal, applied, finalizedHead } from "../../../src/store/Journal.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode } from "../../support/FakeNode.ts"

/** What happens to the chain, and which heads are announced. */
const Event = Schema.Union([
  Schema.TaggedStruct("Extend", { logs: Schema.Int }),
  Schema.TaggedStruct("Jump", { blocks: Schema.Int }),
  Schema.TaggedStruct("Fork", { depth: Schema.Int, longer: Schema.Int }),
  Schema.TaggedStruct("Rollback", { depth: Schema.Int }),
  Schema.TaggedStruct("Repeat", { back: Schema.Int }),
  Schema.TaggedStruct("Finalize", {}),
])

const size = (n: number, most: number) => Math.abs(n) % (most + 1)

/** The endpoint's answers, without a socket. */
const clientOf = (node: FakeNode): RpcClient => {
  const answerTo = (method: string, params: ReadonlyArray<unknown>): unknown =>
    (
      JSON.parse(node.post(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }))!) as {
        readonly result: unknown
      }
    ).result
  return {
    name: "node",
    request: (method, params) => Effect.sync(() => answerTo(method, params)),
    batch: (calls) =>
      Effect.sync(() =>
        calls.map(({ method, params }) => ({ _tag: "Result" as const, result: answerTo(method, params) })),
      ),
  }
}

/** A journal that takes what `reconcile` emits, in the place of a store. */
const world = Effect.fnUntraced(function* (chain: FakeChain) {
  let journal = emptyJournal(0, "none")
  const pending = new PendingJournal(journal, { push: () => callLimits, pop: 1000 }, () => {})
  const apply = (step: ChainStep) => {
    if (step._tag !== "Move") return
    const { move } = step
    assert.deepStrictEqual(move.expected, journal.head)
    journal = applied(journal, move)
    assert.deepStrictEqual(journal, step.journal)
  }
  const logs: LogSource = {
    block: ({ hash }) => {
      const { header, logs } = chain.byHash(hash)!
      return Effect.succeed({ ...header, logs })
    },
    unfinalizedRange: (from, to) => Effect.sync(() => chain.blocks(from, to)),
    finalizedRange: (from, to) => Effect.sync(() => chain.blocks(from, to)),
    width: () => 10,
    servedBy: () => "node",
  }
  const follow = Reconcile.make(
    {
      chain: { confirmations: 0 },
      connection: clientOf(new FakeNode(chain)),
      heads: { replay: Effect.void, inject: () => Effect.void },
      logs,
      capabilities: new Capabilities(),
      pending,
      crossCheck: {
        isSyncing: Effect.succeed(false),
        highestLatest: Effect.succeed,
        agreeOn: () => Effect.succeed({ _tag: "Agreed", others: [] }),
        confirm: () => Effect.void,
        // A chain that is not longer is followed only where it has another block at the height of our head.
        competingVerdict: ({ number, hash }) =>
          Effect.sync(() =>
            chain.at(number)?.header.hash === hash || chain.head.number < number ? "canonical" : "reorged",
          ),
      },
      finality: {
        block: () => undefined,
        takeMismatch: () => undefined,
        finalize: () => Effect.succeed(undefined),
      },
      stored: Effect.sync(() => journal),
      storedUpTo: () => Effect.sync(() => journal),
      standoff: new ForkStandoff(),
      recentHeaders: new RecentHeaders(),
      events: { publish: () => Effect.void },
      scope: yield* Effect.scope,
    },
    (steps) => Effect.sync(() => steps.forEach(apply)),
  )
  return {
    journal: () => journal,
    finalize: (block: BlockRef) => apply(pending.finalize(block)),
    announce: (header: Header) => follow({ header, at: 0 }),
  }
})

describe("reconcile", () => {
  it.effect.prop(
    "emits moves whose replay is the canonical chain, through any reorgs",
    [Schema.Array(Event).check(Schema.isMaxLength(60))],
    ([events]) =>
      Effect.gen(function* () {
        const chain = new FakeChain({ finality: 16 })
        const { announce, finalize, journal } = yield* world(chain)
        const announced: Array<Header> = [chain.head]
        for (const event of events) {
          switch (event._tag) {
            case "Extend":
              chain.extend(size(event.logs, 3))
              break
            case "Jump":
              chain.jump(...Array.from({ length: size(event.blocks, 5) + 1 }, (_, i) => i % 3))
              break
            case "Fork": {
              const depth = size(event.depth, 9) + 1
              chain.fork(
                depth,
                ...Array.from({ length: depth + size(event.longer, 2) }, (_, i) => (i + depth) % 3),
              )
              break
            }
            case "Rollback":
              chain.rollback(size(event.depth, 6))
              break
            case "Repeat":
              yield* announce(announced[Math.max(announced.length - 1 - size(event.back, 5), 0)]!)
              continue
            case "Finalize": {
              const { number, hash } = chain.final
              const ours = journal().window.find((record) => record.number >= number)
              const isCanonical = ours !== undefined && chain.at(ours.number)?.header.hash === ours.hash
              if (isCanonical && number > finalizedHead(journal()).number && number <= journal().head.number)
                finalize({ number, hash })
              continue
            }
          }
          announced.push(chain.head)
          yield* announce(chain.head)
        }
        // At the end the chain is longer than it ever was.
        while (chain.head.number <= journal().head.number) chain.extend(1)
        chain.extend(1)
        yield* announce(chain.head)
        const { head, window } = journal()
        assert.deepStrictEqual(head, { number: chain.head.number, hash: chain.head.hash, part: 0 })
        const expected = chain
          .blocks(finalizedHead(journal()).number + 1)
          .filter(({ number, logs }) => logs.length > 0 || number === 0 || number === chain.head.number)
        assert.deepStrictEqual(
          window.map(({ number, hash, count }) => [number, hash, count]),
          expected.map(({ number, hash, logs }) => [number, hash, logs.length]),
        )
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 300 } },
  )
})
