/**
 * Memory of the built service under load, on a real socket: during an outage of Redis, after it, and with a block larger
 * than any real one so far. `npm run bounds` does the same with ten minutes of traffic and prints the measurements.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schedule } from "effect"
import type { Scope } from "effect"
import type { Redis } from "ioredis"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { loadavg } from "node:os"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { fetchFrom, jsonFrom } from "../support/http.ts"
import * as RedisServer from "../support/RedisServer.ts"
import * as Service from "../support/Service.ts"
import { chainId, firstHeight, hashOf } from "../support/loadGenerator.ts"

/** Logs per second (one block per second), and the length of the outage of Redis in seconds. */
const perSecond = 5000
const seconds = Number(process.env["BOUNDS_SECONDS"] ?? 40)
const isLong = seconds >= 300

/** Seconds of the same traffic before the outage. */
const before = isLong ? 60 : 10

/** How much faster than real time blocks are mined. */
const hurry = isLong ? 10 : 8

const megabyte = 1024 * 1024

/** The maximum growth during the outage, and the maximum memory: the limit of the container. */
const mostGrowth = 64 * megabyte
const memoryLimit = 512 * megabyte

/** Half of the container's memory: Node's default heap limit in such a container. */
const heap = { NODE_OPTIONS: "--max-old-space-size=256" }

/** The minimum rate at which the backlog is stored. A short run is more affected by other load on the machine. */
const leastRate = isLong ? 50_000 : 10_000

/** The maximum time between two responses of the service, however much there is to store (milliseconds). */
const maxResponseInterval = 3000

const figures = (what: string, values: Record<string, unknown>) => {
  if (isLong || process.env["BOUNDS_FIGURES"] !== undefined) {
    process.stdout.write(`${JSON.stringify({ what, ...values, load: loadavg()[0] })}\n`)
  }
}

interface LoadGenerator {
  readonly url: string
  /** Mines blocks with this many logs at this rate and waits for the last; returns the head. */
  readonly grow: (blocks: number, logs: number, perSecond: number) => Effect.Effect<number>
}

const loadGenerator = Effect.gen(function* () {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(
        process.execPath,
        [fileURLToPath(new URL("../support/loadGenerator.ts", import.meta.url)), String(perSecond), "64"],
        { stdio: ["pipe", "pipe", "inherit"] },
      ),
    ),
    (child) =>
      Effect.promise(async () => {
        child.kill("SIGKILL")
        if (child.exitCode === null && child.signalCode === null) await once(child, "exit")
      }),
  )
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const number = Effect.promise(async () => Number(String((await lines.next()).value).split(" ")[1]))
  return {
    url: `ws://127.0.0.1:${yield* number}`,
    grow: (blocks, logs, perSecond) =>
      Effect.suspend(() => {
        child.stdin.write(`${blocks} ${logs} ${perSecond}\n`)
        return number
      }),
  } satisfies LoadGenerator as LoadGenerator
})

interface Sample {
  readonly rss: number
  readonly cpu: number
  readonly head: number
  readonly stored: number
  readonly behind: number
  /** Seconds. */
  readonly lag: number
  readonly at: number
}

const gauge = (text: string, name: string) =>
  Number(new RegExp(`^${name}(?:\\{[^}]*\\})? ([\\d.e+]+)`, "m").exec(text)?.[1])

/** Samples `/metrics` and `/status`. */
const sample = (port: number) =>
  Effect.map(
    Effect.all([fetchFrom(port, "/metrics"), jsonFrom(port, "/status")]),
    ([{ text }, { body }]): Sample => {
      type Chain = Pick<Sample, "head" | "stored" | "behind"> & { readonly lag_s: number }
      const [{ head, stored, behind, lag_s: lag }] = (body as { chains: [Chain] }).chains
      return {
        head,
        stored,
        behind,
        lag,
        at: performance.now(),
        rss: gauge(text, "process_resident_memory_bytes"),
        cpu: gauge(text, "process_cpu_seconds_total"),
      }
    },
  )

/** Samples until one of them satisfies the condition. */
const samples = (port: number, until: (sample: Sample) => boolean) =>
  Effect.suspend(() => {
    const all: Array<Sample> = []
    const next = Effect.tap(sample(port), (one) => Effect.sync(() => all.push(one)))
    return Effect.as(Effect.repeat(next, { schedule: Schedule.spaced("200 millis"), until }), all)
  })

/** The service always reports correctly how far the chain is behind, and for how long. */
const assertReported = (all: ReadonlyArray<Sample>) => {
  for (const [i, { head, stored, behind, lag, at }] of all.entries()) {
    assert.strictEqual(behind, head - stored)
    if (i === 0) continue
    const last = all[i - 1]!
    const passed = at - last.at
    assert.isBelow(passed, maxResponseInterval)
    assert.isAtLeast(head, last.head)
    assert.isAtLeast(stored, last.stored)
    // The head known then is still not stored: the chain was behind the whole time, so the lag grew in real time.
    if (stored < last.head) assert.closeTo(lag - last.lag, passed / 1000, 1)
  }
}

const highest = (all: ReadonlyArray<Sample>) => Math.max(...all.map(({ rss }) => rss))

const inMegabytes = (bytes: number) => Math.round(bytes / megabyte)

/** The stream has every log of these blocks exactly once, in order. */
const assertInOrder = (client: Redis, blocks: Iterable<readonly [number: number, logs: number]>) =>
  Effect.promise(async () => {
    const expected = (function* () {
      for (const [number, logs] of blocks) {
        const hash = hashOf(number)
        for (let i = 0; i < logs; i++) yield `${number} ${hash} ${i} false`
      }
    })()
    let last = "-"
    for (;;) {
      const page = await client.xrange(`events:${chainId}`, last, "+", "COUNT", 5000)
      for (const [, fields] of page) {
        const value = (name: string) => fields[fields.indexOf(name) + 1]
        const found = `${value("block_number")} ${value("block_hash")} ${value("log_index")} ${value("removed")}`
        const { value: wanted } = expected.next()
        if (found !== wanted) assert.strictEqual(found, wanted)
      }
      if (page.length < 5000) break
      last = `(${page.at(-1)![0]}`
    }
    assert.isTrue(expected.next().done)
  })

const world = Effect.fnUntraced(function* (redis: ReadonlyArray<string>) {
  const server = yield* RedisServer.start(redis)
  const node = yield* loadGenerator
  const service = yield* Service.start({
    env: {
      ...heap,
      CHAINS: "load",
      LOAD_CHAIN_ID: String(chainId),
      LOAD_WS_URL: node.url,
      START_BLOCK: String(firstHeight),
      REDIS_URL: server.url,
      STREAM_MAXLEN: "0",
    },
  })
  // A failure caused by a crash of the service does not show the cause: its log does.
  yield* Effect.addFinalizer((exit) =>
    Effect.sync(() => Exit.isFailure(exit) && process.stderr.write(service.errors().slice(-4000))),
  )
  return { server, node, port: yield* service.port }
})

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), isLong ? 900_000 : 90_000)

describe("memory", () => {
  test(
    `stays bounded through ${seconds} s without Redis at ${perSecond} logs/s; heads are followed, the backlog is stored in order`,
    Effect.gen(function* () {
      const { server, node, port } = yield* world([
        "--appendonly",
        "yes",
        "--auto-aof-rewrite-percentage",
        "0",
      ])
      // A warm-up with the same traffic: the measured growth is relative to it.
      const [warm, live] = yield* Effect.all(
        [node.grow(before, perSecond, 1), samples(port, ({ stored }) => stored === firstHeight + before)],
        { concurrency: 2 },
      )
      const usual = highest(live)

      server.kill("SIGKILL")
      const [outageHead, outage] = yield* Effect.all(
        [node.grow(seconds, perSecond, hurry), samples(port, ({ head }) => head === warm + seconds)],
        { concurrency: 2 },
      )
      const growth = highest(outage) - usual
      figures("away", {
        seconds,
        logs: seconds * perSecond,
        rssBefore: inMegabytes(usual),
        growth: inMegabytes(growth),
        samples: outage.length,
      })
      assert.isBelow(growth, mostGrowth)
      assert.isTrue(outage.every(({ stored }) => stored <= warm + 3))
      assertReported(outage)
      const ready = yield* fetchFrom(port, "/ready")
      assert.strictEqual(ready.status, 503)
      assert.match(ready.text, /the store accepts no moves: .*unreachable/)
      const behind = yield* sample(port)
      assert.isAtLeast(behind.behind, seconds - 3)

      yield* server.restart
      let over = false
      let head = outageHead
      const moreTraffic = node.grow(1, perSecond, 1).pipe(
        Effect.tap((grown) => Effect.sync(() => (head = grown))),
        Effect.repeat({ schedule: Schedule.spaced("1 second"), while: () => !over }),
      )
      const backlog = Effect.gen(function* () {
        const waiting = yield* samples(port, ({ stored }) => stored > behind.stored)
        const back = yield* samples(port, ({ behind, stored }) => behind === 0 && stored > outageHead)
        return { waiting, back }
      }).pipe(Effect.ensuring(Effect.sync(() => (over = true))))
      const [, { waiting, back }] = yield* Effect.all([moreTraffic, backlog], { concurrency: 2 })
      const [start, end] = [waiting.at(-1)!, back.at(-1)!]
      const took = (end.at - start.at) / 1000
      const logs = (end.stored - start.stored) * perSecond
      figures("back", {
        logs,
        seconds: took,
        perSecond: Math.round(logs / took),
        cpuMicrosPerLog: ((end.cpu - start.cpu) / logs) * 1e6,
        rssMost: inMegabytes(highest(back)),
        heads: head - outageHead,
        samples: back.length,
        longestSilence: Math.max(...back.slice(1).map(({ at }, i) => Math.round(at - back[i]!.at))),
      })
      assertReported([...waiting, ...back])
      assert.isBelow(highest(back), memoryLimit)
      assert.isAtLeast(logs / took, leastRate)
      yield* samples(port, ({ stored }) => stored === head)
      yield* Effect.repeat(fetchFrom(port, "/ready"), { until: ({ status }) => status === 200 })
      const blocks = Array.from(
        { length: head - firstHeight },
        (_, i) => [firstHeight + 1 + i, perSecond] as const,
      )
      yield* assertInOrder(server.client, blocks)
    }),
  )

  test(
    "stays within the limit while a block of 150 000 logs is stored",
    Effect.gen(function* () {
      const { server, node, port } = yield* world([])
      const small = yield* node.grow(3, 300, 10)
      yield* samples(port, ({ stored }) => stored === small)
      const before = yield* sample(port)
      const head = yield* node.grow(1, 150_000, 1)
      const all = yield* samples(port, ({ stored }) => stored === head)
      figures("large block", { rssBefore: inMegabytes(before.rss), rssMost: inMegabytes(highest(all)) })
      assert.isBelow(highest(all), memoryLimit)
      yield* assertInOrder(server.client, [
        ...[1, 2, 3].map((i) => [firstHeight + i, 300] as const),
        [head, 150_000],
      ])
    }),
  )
})
