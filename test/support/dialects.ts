/** Runs each dialect as a test: under virtual time, or in one process over real sockets. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Logger, Schedule } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { join } from "node:path"
import { unready } from "../../src/observability/Readiness.ts"
import { openSqlite } from "./devnet.ts"
import { assertOutcome, below, compare, epoch, sceneOf } from "./dialect.ts"
import type { End, Row, Scene } from "./dialect.ts"
import { directory } from "./directory.ts"
import { fetchFrom, jsonFrom } from "./http.ts"
import { memoryStore, startIngestor, variablesFor } from "./ingestor.ts"
import type { Client } from "./ingestor.ts"
import * as Service from "./Service.ts"

/** Measures the time from when each height is expected until it is stored. */
class Waits {
  readonly #wanted: Array<{ readonly height: number; readonly at: number }> = []
  longest = 0

  want(height: number, at: number): void {
    this.#wanted.push({ height, at })
  }

  stored(height: number, at: number): void {
    while (this.#wanted.length > 0 && this.#wanted[0]!.height <= height)
      this.longest = Math.max(this.longest, at - this.#wanted.shift()!.at)
  }

  /** The longest wait in seconds; heights that are not stored yet count as well. */
  seconds(now: number): number {
    this.stored(Infinity, now)
    return this.longest / 1000
  }
}

/** Backfill, then live blocks, then until everything is final and audited. */
const runVirtually = Effect.fnUntraced(function* (row: Row, warnings: ReadonlyArray<string>) {
  const { blockTime = 4, live = 20, urls = "ws://one", rpc } = row
  const { extend, ...nodes } = sceneOf(row, 31337)
  const { chain, node, two, three } = nodes
  yield* TestClock.setTime((epoch + (chain.head.number + 1) * blockTime) * 1000)
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  let last = now()
  const scene: Scene = { ...nodes, since: () => now() - last, now }
  row.node(scene)
  const waits = new Waits()
  const inMemory = yield* memoryStore()
  const store: Client = {
    ...inMemory,
    push: (id, filter, push) =>
      Effect.tap(inMemory.push(id, filter, push), () =>
        Effect.sync(() => waits.stored(push.blocks.at(-1)!.number, now())),
      ),
  }
  const variables = {
    ...variablesFor({ devnet: [chain, "one"] }),
    DEVNET_WS_URL: urls,
    ...(rpc && { DEVNET_RPC_URL: rpc }),
    ...row.variables,
  }
  const { status } = yield* startIngestor(store, { one: node, two, three }, variables)
  // HTTP responses are read in several steps, between which the clock must not advance.
  const step = /http:/.test(`${urls}${rpc}`) ? 50 : blockTime * 1000
  const target = () => (row.finalized ? chain.final.number : chain.head.number - (row.behind ?? 0))
  const pass = Effect.fnUntraced(function* (block: number, began: number) {
    last = began
    extend(block)
    waits.want(target(), now())
    for (let passed = 0; passed < blockTime * 1000; passed += step) yield* TestClock.adjust(`${step} millis`)
  })
  for (let i = 0; i < 10 && status.stored !== target(); i++) yield* TestClock.adjust("1 second")
  for (let i = 0; i < live; i++) {
    row.before?.(scene, i)
    yield* pass(i, now())
  }
  const maxDelay = waits.seconds(now())
  for (let i = 0; i * blockTime < 160 && i < 200; i++) yield* pass(i, -Infinity)
  for (let i = 0; i < 60 && status.stored !== target() && !row.stops; i++) yield* TestClock.adjust("1 second")
  const end: End = { ...scene, store, status, warnings, reasons: unready(status, now()) }
  if (row.stops) {
    assert.isNotEmpty(end.reasons)
    assert.match([...end.reasons, status.failures[0]?.text].join(), row.stops)
  } else {
    const start = row.variables?.["START_BLOCK"]
    // Blocks above the target are not expected in the journal.
    const view = target() < chain.head.number ? below(chain, target()) : chain
    const from = start === "latest" ? (yield* store.load(chain.id))!.start.number : Number(start ?? 0)
    const { counts, faults } = yield* compare(store, view, from, row.repaired)
    const errors = Object.values(status.errors).reduce((sum, count) => sum + count, 0)
    const contradicted = status.endpoints.reduce((sum, one) => sum + one.auditMismatches, 0)
    const errorCount = errors + contradicted + status.breakerState.failures
    const stored = status.stored === target() ? [] : [`stored ${status.stored} of ${target()}`]
    assertOutcome(row, {
      outcome: { ...counts, maxDelay, connections: node.connections, errorCount },
      faults: [...faults, ...stored],
      failures: status.failures,
    })
  }
  if (row.notes) assert.match(status.endpoints[0]!.capabilities!.limits.join(), row.notes)
  yield* Effect.suspend(() => row.also?.(end) ?? Effect.void)
})

/** The same, with its warnings collected instead of printed. */
const runQuietly = (row: Row) =>
  Effect.suspend(() => {
    const warnings: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn" || logLevel === "Error" || logLevel === "Fatal") warnings.push(String(message))
    })
    return Effect.provide(runVirtually(row, warnings), Logger.layer([logger]))
  })

/** The rows that need a real socket, each a chain of one process. */
class Wired extends Context.Service<
  Wired,
  {
    readonly port: number
    readonly database: string
    readonly scenes: ReadonlyMap<Row, ReturnType<typeof sceneOf>>
  }
>()("test/Wired") {}

const nameOf = (i: number) => `ROW${i}`

/** Replaces each host in a list of URLs by the address of its node. */
const served = (urls: string, scene: ReturnType<typeof sceneOf>) =>
  Effect.gen(function* () {
    const addresses = { one: scene.node, two: scene.two, three: scene.three }
    let text = urls
    for (const [host, node] of Object.entries(addresses)) {
      if (!urls.includes(`//${host}`)) continue
      text = text.replaceAll(`//${host}`, (yield* node.serve).slice("ws:".length))
    }
    return text
  })

const layerWired = (rows: ReadonlyArray<Row>) =>
  Layer.effect(
    Wired,
    Effect.gen(function* () {
      const database = join(yield* directory, "events.db")
      const began = Math.floor((yield* Clock.currentTimeMillis) / 1000) - 35
      const env: Record<string, string> = { DATABASE_PATH: database, START_BLOCK: "0" }
      const scenes = new Map<Row, ReturnType<typeof sceneOf>>()
      for (const [i, row] of rows.entries()) {
        const scene = sceneOf({ blockTime: 1, ...row }, 41_000 + i, began)
        scenes.set(row, scene)
        row.node({ ...scene, since: () => Infinity, now: Date.now })
        const name = nameOf(i)
        env[`${name}_CHAIN_ID`] = String(scene.chain.id)
        env[`${name}_WS_URL`] = yield* served(row.urls ?? "ws://one", scene)
        if (row.rpc) env[`${name}_RPC_URL`] = yield* served(row.rpc, scene)
        for (const [key, value] of Object.entries(row.variables ?? {})) env[`${name}_${key}`] = value
      }
      env["CHAINS"] = rows.map((_, i) => nameOf(i).toLowerCase()).join(",")
      const service = yield* Service.start({ env })
      return { database, scenes, port: yield* service.port }
    }),
  )

interface Report {
  readonly chains: ReadonlyArray<{
    readonly name: string
    readonly stored: number | null
    readonly failures: ReadonlyArray<{ readonly text: string }>
    readonly endpoints: ReadonlyArray<{
      readonly audit_mismatches: number
      readonly limits: ReadonlyArray<string>
      readonly breaker: { readonly failures: number }
    }>
  }>
}

/** Backfill, then live blocks, each as soon as the previous one is stored. */
const runWired = Effect.fnUntraced(function* (row: Row, i: number) {
  const { port, database, scenes } = yield* Wired
  const scene = scenes.get(row)!
  const { chain, extend, node } = scene
  const name = nameOf(i).toLowerCase()
  const report = Effect.map(jsonFrom(port, "/status"), ({ body }) =>
    (body as Report).chains.find((one) => one.name === name)!,
  )
  let longest = 0
  const reached = Effect.gen(function* () {
    const before = performance.now()
    yield* Effect.repeat(report, {
      schedule: Schedule.spaced("5 millis"),
      until: ({ stored }) => stored === chain.head.number,
    })
    longest = Math.max(longest, performance.now() - before)
  })
  yield* reached
  longest = 0
  for (let block = 0; block < (row.live ?? 12); block++) {
    row.before?.({ ...scene, since: () => Infinity, now: Date.now }, block)
    extend(block)
    yield* reached
  }
  const { endpoints, failures } = yield* report
  const metrics = yield* fetchFrom(port, "/metrics")
  const errors = [
    ...metrics.text.matchAll(
      new RegExp(`^event_ingestor_event_processing_errors_total\\{chain="${name}"[^}]*\\} (\\d+)`, "gm"),
    ),
  ].reduce((sum, [, count]) => sum + Number(count), 0)
  const errorCount = endpoints.reduce(
    (sum, { audit_mismatches, breaker }) => sum + audit_mismatches + breaker.failures,
    errors,
  )
  if (row.notes) assert.match(endpoints[0]!.limits.join(), row.notes)
  const { counts, faults } = yield* compare(yield* openSqlite(database), chain, 0, row.repaired)
  assertOutcome(row, {
    outcome: { ...counts, maxDelay: longest / 1000, connections: node.connections, errorCount },
    faults,
    failures,
  })
}, Effect.scoped)

const titleOf = ({ kind, name }: Row) => `${kind}: a node that ${name}`

/** Runs each row. */
export const suite = (title: string, rows: ReadonlyArray<Row>): void => {
  describe(title, () => {
    for (const row of rows) {
      if (row.over === undefined)
        it.effect(titleOf(row), () => runQuietly(row) as Effect.Effect<void, unknown, Scope.Scope>)
    }
    const wired = rows.filter(({ over }) => over === "a socket")
    if (wired.length === 0) return
    layer(layerWired(wired), { excludeTestServices: true })("over a real socket", (it) => {
      for (const [i, row] of wired.entries()) it.effect(titleOf(row), () => runWired(row, i))
    })
  })
}
