/** The log of the service: which lines, how often, with which fields. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Logger, References } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import { readFileSync, readdirSync } from "node:fs"
import type { ChainEvent } from "../../src/chain/ChainEvents.ts"
import * as ChainLog from "../../src/observability/ChainLog.ts"
import { ChainStatus } from "../../src/observability/ChainStatus.ts"
import { events, formatDuration, logEvent } from "../../src/observability/LogEvents.ts"
import type { Event } from "../../src/observability/LogEvents.ts"
import * as Logging from "../../src/observability/Logging.ts"
import { CurrentLogLimits, LogLimits } from "../../src/observability/LogLimits.ts"
import * as Housekeeping from "../../src/store/Housekeeping.ts"
import type { Holder } from "../../src/store/Retention.ts"
import * as StoreBreaker from "../../src/store/StoreBreaker.ts"
import { StoreError } from "../../src/store/StoreError.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode, silence } from "../support/FakeNode.ts"
import { caughtUp, eventually, memoryStore, startIngestor, variablesFor } from "../support/ingestor.ts"

interface Line {
  readonly at: number
  readonly level: string
  readonly text: string
  readonly fields: Readonly<Record<string, unknown>>
}

/** A logger that captures all lines. */
const capturing = () => {
  const lines: Array<Line> = []
  const logger = Logger.make(({ date, fiber, logLevel, message }) => {
    const fields = fiber.getRef(References.CurrentLogAnnotations)
    lines.push({
      at: date.getTime() / 1000,
      level: logLevel,
      text: [message].flat().map(String).join(" "),
      fields,
    })
  })
  /** The lines of these events. */
  const of = (...wanted: ReadonlyArray<Event>) =>
    lines.filter(({ fields }) => (wanted as ReadonlyArray<unknown>).includes(fields["event"]))
  return { lines, of, layer: Layer.fresh(Logger.layer([logger])) }
}

type Log = ReturnType<typeof capturing>

const texts = (lines: ReadonlyArray<Line>) => lines.map(({ text }) => text)

const test = (title: string, body: (log: Log) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.effect(title, () =>
    Effect.suspend(() => {
      const log = capturing()
      return Effect.provide(body(log), log.layer)
    }),
  )

/** Writes the lines of a chain's events, with `STREAM_BACKLOG` 100. */
const publishing = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const status = new ChainStatus({ name: "one", id: 1, confirmations: 0, endpoints: [], rpc: [] }, clock)
  const lineOf = ChainLog.make(clock, 100)
  return (event: ChainEvent) => lineOf(event, status) ?? Effect.void
})

/** A chain with one node or two. */
const world = Effect.fnUntraced(function* (options = {}, hosts = "one") {
  const chain = new FakeChain({ finality: 16, ...options })
  const [one, two] = [new FakeNode(chain), new FakeNode(chain)]
  const store = yield* memoryStore()
  const start = (variables = {}, to = store) =>
    startIngestor(to, { one, two }, { ...variablesFor({ devnet: [chain, hosts] }), ...variables })
  return { chain, one, two, store, start }
})

const many = (count: number) => Array.from({ length: count }, (_, i) => (i * 7) % 5)

describe("the log", () => {
  test("reports where a chain begins, that it is live, and where it resumes, once each", (log) =>
    Effect.gen(function* () {
      const { chain, start, store } = yield* world()
      chain.extend(...many(50))
      const first = yield* start()
      yield* caughtUp(store, chain, first.status)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(texts(log.of("begin", "resume", "live")), [
        "beginning at block 0 (no filter)",
        "live at block 50",
      ])
      yield* first.stop
      log.lines.length = 0
      const second = yield* start()
      yield* caughtUp(store, chain, second.status)
      yield* TestClock.adjust("30 seconds")
      const [resumed, live, ...others] = log.of("begin", "resume", "live")
      assert.match(resumed!.text, /^resuming at block 51 \(final 34, no filter\)$/)
      assert.deepStrictEqual(resumed!.fields, {
        chain: "devnet",
        event: "resume",
        block: 51,
        stored: 50,
        final: 34,
        filter: "none",
      })
      assert.deepStrictEqual(live!.fields, { chain: "devnet", event: "live", block: 50 })
      assert.deepStrictEqual(others, [])
    }))

  test("names the block of `latest` once it is known", (log) =>
    Effect.gen(function* () {
      const { chain, start, store } = yield* world()
      chain.extend(...many(30))
      const { status } = yield* start({ START_BLOCK: "latest" })
      yield* caughtUp(store, chain, status, 30)
      assert.deepStrictEqual(texts(log.of("begin", "resume")), ["beginning at block 30 (no filter)"])
    }))

  test("reports the depth of a reorg and what it retracted", (log) =>
    Effect.gen(function* () {
      const { chain, start, store } = yield* world()
      chain.extend(...many(40), 3, 0, 4)
      const { status } = yield* start()
      yield* caughtUp(store, chain, status)
      chain.fork(3, 1, 1, 1, 1)
      yield* caughtUp(store, chain, status)
      const [reorg, ...others] = log.of("reorg")
      assert.deepStrictEqual(others, [])
      assert.strictEqual(reorg!.level, "Info")
      assert.strictEqual(
        reorg!.text,
        "reorg of 3 blocks from 43 down: 2 stored blocks with 7 entries retracted",
      )
      assert.deepStrictEqual(reorg!.fields, {
        chain: "devnet",
        event: "reorg",
        depth: 3,
        block: 43,
        retracted_blocks: 2,
        retracted_entries: 7,
      })
    }))

  test("reports a backfill every 10 s with its rate and the time left, and its end", (log) =>
    Effect.gen(function* () {
      const { chain, start, store } = yield* world({ finality: 4 })
      chain.jump(...Array.from({ length: 30_000 }, () => 1))
      const slow = {
        ...store,
        push: (...args: Parameters<typeof store.push>) => Effect.delay(store.push(...args), "3 seconds"),
      }
      const { status } = yield* start({ AUDIT: "off" }, slow)
      yield* eventually("it is at the head", () => status.stored === chain.head.number, 600)
      yield* TestClock.adjust("30 seconds")
      const lines = log.of("backfill")
      assert.isAbove(lines.length, 1)
      for (const [i, { at, fields, level, text }] of lines.entries()) {
        if (i > 0) assert.isAtLeast(at - lines[i - 1]!.at, 10)
        assert.strictEqual(level, "Info")
        assert.match(text, /^\d+ blocks? behind, at block \d+ of 30000: \d+ blocks\/s, \d+ logs\/s, .* left$/)
        for (const name of [
          "block",
          "target",
          "behind",
          "blocks_per_second",
          "logs_per_second",
          "seconds_left",
        ])
          assert.isNumber(fields[name], name)
        assert.strictEqual((fields["block"] as number) + (fields["behind"] as number), 30_000)
      }
      // The estimated time left is close to the time it took.
      const end = log.of("live")
      assert.deepStrictEqual(texts(end), ["live at block 30000"])
      const { at, fields } = lines[0]!
      const took = end[0]!.at - at
      assert.approximately(fields["seconds_left"] as number, took, took / 2)
    }))

  test("gives the reason when a chain that is behind makes no progress", (log) =>
    Effect.gen(function* () {
      const { chain, one, start, store } = yield* world()
      chain.extend(...many(20))
      const { status } = yield* start()
      yield* caughtUp(store, chain, status)
      one.intercept = (method, _params, proceed) => (/Logs|Receipt/.test(method) ? silence : proceed())
      for (let i = 0; i < 60; i++) {
        chain.extend(2)
        yield* TestClock.adjust("2 seconds")
      }
      const behind = log.of("backfill")
      assert.isAbove(behind.length, 0, texts(log.lines).join("\n"))
      assert.match(
        texts(behind).join("\n"),
        /blocks behind, at block 20 of \d+: no block in \d+ s: .*eth_getLogs/,
      )
    }))

  test("uses one line each for up to 20 chains that are behind, and a single line for more", () =>
    Effect.gen(function* () {
      for (const [count, expected] of [
        [20, 20],
        [21, 1],
      ] as const) {
        const log = capturing()
        yield* Effect.gen(function* () {
          const store = yield* memoryStore()
          const nodes: Record<string, FakeNode> = {}
          const chains: Record<string, readonly [FakeChain, string]> = {}
          for (let i = 0; i < count; i++) {
            const chain = new FakeChain({ id: 100 + i, finality: 4 })
            chain.jump(...Array.from({ length: 3000 }, () => 0))
            const node = new FakeNode(chain)
            node.intercept = (method, params, proceed) =>
              method === "eth_getLogs" && params.length > 0 ? silence : proceed()
            nodes[`host${i}`] = node
            chains[`chain${i}`] = [chain, `host${i}`]
          }
          yield* startIngestor(store, nodes, { ...variablesFor(chains), LOGS_BLOOM: "ignore", AUDIT: "off" })
          yield* TestClock.adjust("10500 millis")
          const lines = log.of("backfill")
          assert.strictEqual(lines.length, expected, texts(log.lines).join("\n"))
          if (count > 20) {
            assert.match(
              lines[0]!.text,
              /^21 chains are behind, .*; the slowest, chain\d+, makes no progress$/,
            )
            assert.strictEqual(lines[0]!.fields["chains"], 21)
            assert.isUndefined(lines[0]!.fields["chain"])
          }
        }).pipe(Effect.scoped, Effect.provide(log.layer))
      }
    }))

  test("reports a failover with its reason, the endpoint in use, and the failback", (log) =>
    Effect.gen(function* () {
      const { chain, one, start, store } = yield* world({}, "one,two")
      chain.extend(...many(20))
      const { status } = yield* start()
      yield* caughtUp(store, chain, status)
      const [first] = log.of("in_use")
      assert.deepStrictEqual(first!.fields, { chain: "devnet", endpoint: "one:80", event: "in_use" })
      one.up = false
      one.drop()
      yield* eventually("the other one is in use", () => status.endpoint === status.endpoints[1])
      const [left] = log.of("failover")
      assert.match(left!.text, /^failed over from one:80 to two:80: connection lost: /)
      assert.strictEqual(left!.level, "Warn")
      assert.deepStrictEqual(
        { ...left!.fields, reason: undefined },
        { chain: "devnet", event: "failover", from: "one:80", to: "two:80", reason: undefined },
      )
      const [lost] = log.of("disconnected")
      assert.match(lost!.text, /^lost one:80 after \d+.* s: /)
      assert.deepStrictEqual(lost!.fields["error_type"], "connection")
      one.up = true
      for (let i = 0; i < 120 && log.of("failback").length === 0; i++) {
        chain.extend(1)
        yield* TestClock.adjust("4 seconds")
      }
      assert.deepStrictEqual(texts(log.of("failback")), [
        "failed back from two:80 to one:80, which is preferred",
      ])
      assert.deepStrictEqual(log.of("in_use", "failover").length, 2)
    }))

  test("reports once that the circuit to an endpoint opens, with the next try, and once that it closes", (log) =>
    Effect.gen(function* () {
      const { chain, one, start, store } = yield* world()
      chain.extend(...many(20))
      const { status } = yield* start()
      yield* caughtUp(store, chain, status)
      one.up = false
      one.drop()
      yield* TestClock.adjust("2 minutes")
      const [opened, ...others] = log.of("circuit_open")
      assert.deepStrictEqual(others, [])
      assert.match(
        opened!.text,
        /^circuit to one:80 opened after 3 failures: refused; next try in \d+(\.\d)? s$/,
      )
      assert.strictEqual(opened!.fields["circuit"], "endpoint")
      assert.strictEqual(opened!.fields["failures"], 3)
      assert.isNumber(opened!.fields["next_try_seconds"])
      one.up = true
      yield* eventually("it is connected", () => status.endpoints[0]!.connectedSince !== undefined, 120)
      chain.extend(1)
      yield* caughtUp(store, chain, status)
      const [closed, ...more] = log.of("circuit_closed")
      assert.deepStrictEqual(more, [])
      assert.match(closed!.text, /^circuit to one:80 closed after \d+ failures$/)
    }))

  test("reports an unreachable endpoint in one line with the next try, then once a minute", (log) =>
    Effect.gen(function* () {
      const { one, start, two } = yield* world({}, "one,two")
      one.up = false
      two.up = false
      yield* start()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        texts(log.lines).map((text) => text.replace(/\d+(\.\d)? s$/, "N s")),
        [
          "cannot connect to one:80: refused; next try in N s",
          "cannot connect to two:80: refused; next try in N s",
        ],
      )
      yield* TestClock.adjust("10 minutes")
      for (const endpoint of ["one:80", "two:80"]) {
        const about = log.lines.filter(({ fields }) => fields["endpoint"] === endpoint)
        const failed = about.filter(({ fields }) => fields["event"] === "connect_failed")
        assert.isAbove(failed.length, 4)
        assert.isAtMost(failed.length, 11)
        for (const [i, { at, fields }] of failed.entries()) {
          if (i > 0) assert.isAtLeast(at - failed[i - 1]!.at, 60)
          assert.isNumber(fields["next_try_seconds"])
          assert.strictEqual(fields["reason"], "refused")
        }
        // The only other line is that of the opened circuit.
        assert.strictEqual(about.length, failed.length + 1)
      }
    }))

  test("writes at most one line per kind and 10 s for a flapping endpoint, with the number of suppressed lines", (log) =>
    Effect.gen(function* () {
      const { chain, one, start, store } = yield* world()
      chain.extend(...many(20))
      const { status } = yield* start()
      yield* caughtUp(store, chain, status)
      let drops = 0
      for (let i = 0; i < 40; i++) {
        yield* eventually("it is connected", () => status.endpoints[0]!.connectedSince !== undefined, 120)
        chain.extend(1)
        yield* caughtUp(store, chain, status)
        one.drop()
        drops++
        yield* TestClock.adjust("200 millis")
      }
      yield* TestClock.adjust("30 seconds")
      let counted = 0
      for (const event of ["connected", "disconnected"] as const) {
        const lines = log.of(event)
        for (const [i, { at }] of lines.entries())
          if (i > 0) assert.isAtLeast(at - lines[i - 1]!.at, 10, event)
        if (event === "disconnected")
          counted = lines.reduce((sum, { fields }) => sum + 1 + Number(fields["left_out"] ?? 0), 0)
      }
      assert.strictEqual(counted, drops)
      assert.isBelow(log.of("disconnected").length, drops / 2)
      // The last line shows the current state.
      assert.strictEqual(log.of("connected", "disconnected").at(-1)!.fields["event"], "connected")
    }))

  test("reports once each that the store is unavailable, that its circuit opens, and that it recovers", (log) =>
    Effect.gen(function* () {
      const unreachable = new StoreError({ operation: "push", reason: "unreachable", detail: "ECONNREFUSED" })
      let isAway = true
      const probe = Effect.suspend(() => (isAway ? Effect.fail(unreachable) : Effect.void))
      const { trip, awaitClosed, succeed } = yield* StoreBreaker.make(probe, yield* publishing)
      yield* trip(unreachable)
      yield* TestClock.adjust("20 seconds")
      isAway = false
      yield* TestClock.adjust("1 second")
      yield* awaitClosed
      yield* succeed
      assert.deepStrictEqual(
        log.lines.map(({ fields }) => fields["event"]),
        ["store_unavailable", "circuit_open", "store_available", "circuit_closed"],
      )
      const [first, open, back, closed] = texts(log.lines)
      assert.match(first!, /ECONNREFUSED.*; next try in 0\.5 s$/)
      assert.match(
        open!,
        /^circuit to the store opened after 3 failures: .*ECONNREFUSED.*; next try in 0\.5 s$/,
      )
      assert.match(back!, /^the store is available again after 2\d(\.\d)? s$/)
      assert.match(closed!, /^the store accepts moves again after \d+ failures: circuit closed$/)
      assert.strictEqual(log.lines[1]!.fields["circuit"], "store")
    }).pipe(Effect.provideService(CurrentLogLimits, new LogLimits())))

  test("reports for each chain that its publishing is paused", (log) =>
    Effect.gen(function* () {
      const [one, two] = [new FakeChain({ id: 1 }), new FakeChain({ id: 2 })]
      const holder: Holder = {
        reader: "group:slow",
        behind: 9,
        length: 10,
        paused: "backlog",
        release: "XGROUP DESTROY",
      }
      const store = { ...(yield* memoryStore()), trim: () => Effect.succeed({ dropped: 0, holder }) }
      const nodes = { one: new FakeNode(one), two: new FakeNode(two) }
      yield* startIngestor(store, nodes, variablesFor({ one: [one, "one"], two: [two, "two"] }))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(
        log
          .of("paused")
          .map(({ fields }) => fields["chain"])
          .sort(),
        ["one", "two"],
      )
    }))

  test("reports that publishing is paused and for which reader, and that it resumes", (log) =>
    Effect.gen(function* () {
      const paused: Holder = {
        reader: "group:slow",
        behind: 90,
        length: 100,
        paused: "backlog",
        release: "XGROUP DESTROY events:1 slow",
      }
      let holder: Holder | undefined = paused
      const trim = Effect.sync(() => ({ dropped: 0, holder }))
      yield* Housekeeping.make(trim, yield* publishing)
      yield* TestClock.adjust("5 seconds")
      holder = undefined
      yield* TestClock.adjust("5 seconds")
      const [begun, over, ...others] = log.lines
      assert.deepStrictEqual(others, [])
      assert.match(begun!.text, /^publishing is paused: group slow has not read 90 of 100 entries/)
      assert.deepStrictEqual(begun!.fields, {
        event: "paused",
        reader: "group:slow",
        behind: 90,
        length: 100,
        reason: "backlog",
      })
      assert.deepStrictEqual([over!.level, over!.text], ["Info", "publishing resumed"])
    }))
})

describe("a log line", () => {
  const line = (logger: Logger.Logger<unknown, string>, effect: Effect.Effect<void>) =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const kept = Logger.map(logger, (text) => void lines.push(text))
      yield* Effect.provide(effect, Layer.fresh(Logger.layer([kept])))
      return lines.join("\n")
    })

  const reorg = logEvent("reorg", "reorg of 2 blocks from 101 down", {
    depth: 2,
    block: 101,
    retracted_blocks: 1,
    retracted_entries: undefined,
  }).pipe(
    Effect.annotateLogs({ chain: "ethereum", endpoint: "a.example" }),
    Effect.withLogSpan("an unrelated span"),
  )

  it.effect("is JSON with exactly the event's fields, byte for byte", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* line(Logging.json, reorg),
        '{"timestamp":"1970-01-01T00:00:00.000Z","level":"INFO","event":"reorg","chain":"ethereum","endpoint":"a.example","message":"reorg of 2 blocks from 101 down","depth":2,"block":101,"retracted_blocks":1}',
      )
    }),
  )

  it.effect("is logfmt with the same fields, quoted only where necessary", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* line(Logging.logfmt, reorg),
        'timestamp=1970-01-01T00:00:00.000Z level=INFO event=reorg chain=ethereum endpoint=a.example message="reorg of 2 blocks from 101 down" depth=2 block=101 retracted_blocks=1',
      )
    }),
  )

  it.effect("is one readable line with the chain first, and the stack of a defect below", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* line(Logging.pretty(false), reorg),
        "1970-01-01 00:00:00Z INFO  ethereum: reorg of 2 blocks from 101 down (a.example)",
      )
      const defect = logEvent("defect", "a defect in the background", {}, new Error("oops"))
      assert.match(
        yield* line(Logging.pretty(false), defect),
        /^1970.* ERROR a defect in the background .*oops\n +at /s,
      )
      assert.match(yield* line(Logging.json, defect), /"message":"a defect in the background Error: oops\\n/)
    }),
  )

  it("formats durations with units", () => {
    assert.deepStrictEqual([0.5, 12.34, 89, 90, 5000, 7500, 400_000].map(formatDuration), [
      "0.5 s",
      "12 s",
      "89 s",
      "2 min",
      "83 min",
      "2 h 5 min",
      "5 days",
    ])
  })
})

describe("docs/LOGS.md", () => {
  const sources = readdirSync("src", { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => [path, readFileSync(`src/${path}`, "utf8")] as const)

  it("lists exactly the defined event codes, with their levels and fields", () => {
    const rows = [
      ...readFileSync("docs/LOGS.md", "utf8").matchAll(/^\| `(\w+)` \| (\w+) \| (.*?) \| (.+) \|$/gm),
    ]
    const documented = rows.map(([, code, level, fields]) => [
      code,
      level,
      [...fields!.matchAll(/`(\w+)` \((number|string)\)/g)].map(([, name, type]) => [name, type]),
    ])
    const known = Object.entries(events).map(([code, { fields, level }]) => [
      code,
      level.toLowerCase(),
      Object.entries(fields),
    ])
    assert.deepStrictEqual(documented, known)
  })

  it("lists only events that are logged, and every line has a code except one of SQLite", () => {
    const all = sources.map(([, text]) => text).join("\n")
    for (const code of Object.keys(events)) assert.match(all, new RegExp(`logEvent\\(\\s*"${code}"`), code)
    const without = sources
      .filter(([, text]) => /Effect\.log(Info|Warning|Error|Fatal|)\(/.test(text))
      .map(([path]) => path)
    assert.deepStrictEqual(without, ["store/sqlite/SqliteFile.ts"])
  })
})
