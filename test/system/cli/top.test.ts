/** `top`, of real services, on terminals and into pipes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import * as Devnet from "../../support/devnet.ts"
import { directory } from "../../support/directory.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode } from "../../support/FakeNode.ts"
import { jsonFrom } from "../../support/http.ts"
import * as RedisServer from "../../support/RedisServer.ts"
import * as Service from "../../support/Service.ts"
import { onTerminal, plain } from "../../support/terminal.ts"
import type { Size } from "../../support/terminal.ts"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

const variables = Effect.gen(function* () {
  const node = new FakeNode(new FakeChain())
  node.chain.extend(1, 2, 3)
  return Devnet.environment(yield* node.serve, { DATABASE_PATH: join(yield* directory, "events.db") })
})

/** `top` on a terminal, and the lines that are on its screen. */
const watch = Effect.fnUntraced(function* (
  args: ReadonlyArray<string>,
  size: Size,
  env: Record<string, string> = {},
) {
  const terminal = yield* onTerminal(["top", ...args], env, size)
  const lines = () => plain(terminal.output().split("\u001b[H").at(-1)!).split("\r\n")
  const shows = (pattern: RegExp) =>
    Effect.repeat(Effect.sync(lines), {
      until: (lines) => pattern.test(lines.join("\n")),
      schedule: Schedule.spaced("20 millis"),
    })
  return { ...terminal, shows }
})

const [opened, closed] = ["\u001b[?1049h", "\u001b[?1049l"]

describe("top on a terminal", () => {
  test(
    "redraws who follows each chain of a fleet, its blocks and the state of Redis, and restores the screen on Ctrl-C",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const node = new FakeNode(new FakeChain())
      node.chain.extend(1, 2, 3)
      const fleet = { FLEET: "main", REDIS_URL: server.url }
      const service = yield* Service.start({ env: Devnet.environment(yield* node.serve, fleet) })
      const top = yield* watch([`127.0.0.1:${yield* service.port}`], { columns: 160, rows: 10 })
      const [summary, titles, devnet] = yield* top.shows(/^devnet +\S+ +3 +3 .* live .* ok/m)
      assert.match(
        summary!,
        /^event-ingestor \S+ at http:\/\/127\.0\.0\.1:\d+ {2}up \d+ s {2}redis .*fleet main: 1 member$/,
      )
      assert.match(
        titles!,
        /^chain +followed by +head +stored +lag +logs\/s +state +endpoint +redis( +not ready because)?$/,
      )
      assert.match(devnet!, /^devnet +\S+ +3 +3 +\d+ s +[\d.]+ +live +127\.0\.0\.1:\d+ +ok/)
      node.chain.extend(1)
      yield* top.shows(/^devnet +\S+ +4 +4 /m)
      server.kill("SIGKILL")
      node.chain.extend(1)
      yield* top.shows(/^devnet .* (open|half-open) +\S/m)
      assert.isFalse(top.output().includes(closed))
      yield* top.types("\u0003")
      assert.strictEqual(yield* top.exit, 0)
      assert.strictEqual(top.output().split(opened).length, 2)
      assert.isTrue(top.output().trimEnd().endsWith(`\u001b[?25h${closed}`))
    }),
  )

  test(
    "says in one line that the service does not answer, retries, and leaves out columns that do not fit; q quits",
    Effect.gen(function* () {
      const env = yield* variables
      const port = yield* RedisServer.freePort
      const columns = 40
      const top = yield* watch([], { columns, rows: 10 }, { HTTP_PORT: String(port), NO_COLOR: "1" })
      const silent = yield* top.shows(/^no status from/)
      assert.deepStrictEqual(silent, [
        `no status from http://127.0.0.1:${port}: connect`.slice(0, columns - 1) + "…",
      ])
      yield* Service.start({ env: { ...env, HTTP_PORT: String(port) } })
      const lines = yield* top.shows(/^devnet +3 +3/m)
      assert.match(lines[1]!, /^chain +head +stored +lag/)
      assert.notMatch(lines[1]!, /redis|sqlite/)
      for (const line of lines) assert.isAtMost(line.length, columns)
      // oxlint-disable-next-line no-control-regex -- a sequence that sets a colour
      assert.notMatch(top.output(), /\u001b\[\d+m/)
      yield* top.types("q")
      assert.strictEqual(yield* top.exit, 0)
    }),
  )
})

describe("top without a terminal, or with --once or --json", () => {
  test(
    "prints the table once, and neither a secret nor escape sequences",
    Effect.gen(function* () {
      const env = { ...(yield* variables), METRICS_TOKEN: "s3cret-token" }
      const service = yield* Service.start({ env })
      const port = yield* service.port
      yield* Effect.repeat(jsonFrom(port, "/ready"), { until: ({ status }) => status === 200 })
      const run = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
        Service.run({ args: ["top", ...args], env })
      const { code, output } = yield* run([`http://127.0.0.1:${port}/status`], {
        METRICS_TOKEN: "s3cret-token",
      })
      assert.strictEqual(code, 0)
      assert.match(output, /^event-ingestor .*\nchain .*\ndevnet .* live +127\.0\.0\.1:\d+ +ok\n$/)
      for (const text of ["\u001b", "s3cret", "ws:"]) assert.notInclude(output, text)
      const json = yield* run([`http://:s3cret-token@127.0.0.1:${port}`, "--json"])
      assert.deepInclude(JSON.parse(json.output), {
        chain: "devnet",
        followed_by: null,
        state: "live",
        reasons: [],
      })

      const once = yield* onTerminal(
        ["top", `http://127.0.0.1:${port}`, "--once"],
        { METRICS_TOKEN: "s3cret-token" },
        { columns: 100, rows: 10 },
      )
      assert.strictEqual(yield* once.exit, 0)
      assert.notInclude(once.output(), opened)
      assert.match(plain(once.output()), /^devnet .* live /m)

      const refused = yield* run([`http://127.0.0.1:${port}`])
      assert.deepStrictEqual(refused, {
        code: 69,
        output: "",
        errors: `no status from http://127.0.0.1:${port}: a token is required: set METRICS_TOKEN\n`,
      })
      const away = yield* run([`http://:s3cret-token@127.0.0.1:${yield* RedisServer.freePort}`])
      assert.strictEqual(away.code, 69)
      assert.match(away.errors, /^no status from http:\/\/127\.0\.0\.1:\d+: connect ECONNREFUSED .*\n$/)
      const wrong = yield* run(["http://:s3cret-token@host?query"])
      assert.strictEqual(wrong.code, 64)
      assert.match(wrong.errors, /address: expected an HTTP address/)
      assert.notInclude(wrong.errors, "s3cret")
    }),
  )

  test(
    "names what is wrong with an address of something else",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const { code, errors } = yield* Service.run({ args: ["top", `127.0.0.1:${server.port}`] })
      assert.strictEqual(code, 69)
      assert.match(errors, /^no status from http:\/\/127\.0\.0\.1:\d+: .+\n$/)
    }),
  )
})
