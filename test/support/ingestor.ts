/** The real service, from endpoint to store, on in-memory nodes and under the test clock. */
import { assert } from "@effect/vitest"
import { Context, Effect, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { AppConfig, fromVariables } from "../../src/config/AppConfig.ts"
import * as Supervisor from "../../src/chain/Supervisor.ts"
import type { Retention } from "../../src/store/Retention.ts"
import { callLimits } from "../../src/store/Journal.ts"
import type { CallLimits } from "../../src/store/Journal.ts"
import * as SqliteStore from "../../src/store/sqlite/SqliteStore.ts"
import { Entries } from "../../src/store/Entries.ts"
import { JournalStore } from "../../src/store/JournalStore.ts"
import { contextOf } from "../../src/store/Store.ts"
import type { Contracts, Store } from "../../src/store/Store.ts"
import { StoreAdmin } from "../../src/store/StoreAdmin.ts"
import * as Observer from "../../src/observability/Observer.ts"
import { Status } from "../../src/observability/Status.ts"
import type { ChainStatus } from "../../src/observability/ChainStatus.ts"
import type { FakeChain } from "./FakeChain.ts"
import { layerTransport } from "./FakeNode.ts"
import type { FakeNode } from "./FakeNode.ts"
import { assertComplete } from "./oracle.ts"
import type { StoreError } from "../../src/store/StoreError.ts"

export type Client = Store

/** Builds a store; it is closed with the scope. */
export const openStore = <E>(layer: Layer.Layer<Contracts, E>): Effect.Effect<Client, E, Scope.Scope> =>
  Effect.map(Layer.build(layer), (context) => ({
    ...Context.get(context, JournalStore),
    ...Context.get(context, Entries),
    ...Context.get(context, StoreAdmin),
  }))

/** Keeps about `maxLength` entries, and four times as many for pinned readers. */
export const keeping = (maxLength: number, groups: ReadonlyArray<string> = []): Retention => ({
  maxLength,
  groups,
  backlog: maxLength * 4,
})

/** A store in this file. */
export const openSqlite = (
  path: string,
  retention: Retention = keeping(0),
  limits: CallLimits = callLimits,
): Effect.Effect<Client, StoreError, Scope.Scope> => openStore(SqliteStore.layer(path, retention, limits))

/** An empty store in memory that outlives the ingestors that use it. */
export const memoryStore = (
  maxLength = 0,
  limits: CallLimits = callLimits,
): Effect.Effect<Client, unknown, Scope.Scope> => openSqlite(":memory:", keeping(maxLength), limits)

/** A store that can be replaced by another one. */
export const switching = (before: Client, after: Client) => {
  let now = before
  const store: Client = {
    ...before,
    // The service reads `load` once and reuses the effect.
    load: (id) => Effect.suspend(() => now.load(id)),
    push: (id, filter, push) => now.push(id, filter, push),
    pop: (id, filter, pop) => now.pop(id, filter, pop),
    finalize: (id, filter, finalize) => now.finalize(id, filter, finalize),
  }
  return { store, change: () => void (now = after) }
}

export interface Ingestor {
  readonly status: ChainStatus
  readonly all: ReadonlyArray<ChainStatus>
  readonly stop: Effect.Effect<void>
}

/** Variables for chains that are served by these nodes; each chain may have several, separated by commas. */
export const variablesFor = (chains: Readonly<Record<string, readonly [chain: FakeChain, hosts: string]>>) =>
  Object.fromEntries([
    ["CHAINS", Object.keys(chains).join(",")],
    ["START_BLOCK", "0"],
    ...Object.entries(chains).flatMap(([name, [chain, hosts]]) => [
      [`${name.toUpperCase()}_CHAIN_ID`, String(chain.id)],
      [
        `${name.toUpperCase()}_WS_URL`,
        hosts
          .split(",")
          .map((host) => `ws://${host}`)
          .join(","),
      ],
    ]),
  ]) as Record<string, string>

/** Starts an ingestor, which runs until it is stopped or the scope closes. */
export const startIngestor = Effect.fnUntraced(function* (
  store: Client,
  nodes: Readonly<Record<string, FakeNode>>,
  variables: Record<string, string>,
) {
  const config = yield* fromVariables(variables)
  const scope = yield* Scope.fork(yield* Effect.scope)
  const service = Supervisor.layer.pipe(
    Layer.provide(Observer.layer),
    Layer.provideMerge(Status.layer),
    Layer.provide(Layer.succeedContext(contextOf(store))),
    Layer.provide(Layer.succeed(AppConfig, config)),
    Layer.provide(layerTransport(nodes)),
    // Two ingestors in one test are two processes: they share no layer.
    Layer.fresh,
  )
  const { chains } = Context.get(yield* Layer.buildWithScope(service, scope), Status)
  return {
    status: chains[0]!,
    all: chains,
    stop: Scope.close(scope, { _tag: "Success", value: undefined } as never),
  } satisfies Ingestor as Ingestor
})

/** Advances the test clock until a condition holds, for at most this many virtual seconds. */
export const eventually = Effect.fnUntraced(function* (what: string, holds: () => boolean, seconds = 60) {
  for (let i = 0; i < seconds * 20; i++) {
    if (holds()) return
    yield* TestClock.adjust("50 millis")
  }
  assert.fail(`within ${seconds} s: ${what}`)
})

/** Waits until the store is at the head of the chain, and compares as `judge` does. */
export const caughtUp = Effect.fnUntraced(function* (
  store: Client,
  chain: FakeChain,
  status: ChainStatus,
  start = 0,
  throughout = true,
) {
  yield* eventually(
    `stored ${status.stored} is ${chain.head.number}`,
    () => status.stored === chain.head.number,
  )
  return yield* assertComplete(store, chain, start, throughout)
})

/** Extends the chain by this many blocks of one to three logs, one per block time. */
export const extendInTime = (chain: FakeChain, count: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let i = 0; i < count; i++) {
      chain.extend((i % 3) + 1)
      yield* TestClock.adjust(`${chain.blockTime} seconds`)
    }
  })
