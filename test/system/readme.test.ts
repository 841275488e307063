/** Runs every command of the README, and of docs/CONSUMING.md, as written, except for ports and durations. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { replayOf } from "../support/oracle.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { openRedis, standalone } from "../support/redisStore.ts"
import { python, shell } from "../support/shell.ts"

const readme = ["README.md", "docs/CONSUMING.md"].map((path) => readFileSync(path, "utf8")).join("\n")

const commands = [...readme.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].flatMap(([, block]) =>
  block!.trim().split("\n"),
)

/** Commands that `.ci/run` or the tests of the demo and the build run. */
const elsewhere = new Set(["npm ci && npm run demo", "npm ci && npm test"])

/** The headings of a page, as GitHub writes them in links. */
const headingsOf = (path: string) =>
  new Set(
    [...readFileSync(path, "utf8").matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .trim()
        .replaceAll(" ", "-"),
    ),
  )

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 60_000)

describe("the README", () => {
  it("has only commands that a test runs", () => {
    const known = [/^(\w+=\S+ )*npm start$/, /^redis-cli /, / (node|python3) examples\/consume\.(ts|py) /]
    const unknown = commands.filter(
      (line) => !elsewhere.has(line) && !known.some((pattern) => pattern.test(line)),
    )
    assert.deepStrictEqual(unknown, [])
    assert.isAbove(commands.length, 8)
  })

  it("has at most 1 000 words", () => {
    assert.isAtMost(readFileSync("README.md", "utf8").split(/\s+/).length, 1000)
  })

  it("and every other page have only links to files and headings that exist", () => {
    const pages = execFileSync("git", ["ls-files", "*.md"], { encoding: "utf8" }).trim().split("\n")
    const broken = pages.flatMap((page) =>
      [...readFileSync(page, "utf8").matchAll(/\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)/g)]
        .filter(([, path, heading]) => {
          const target = path === "" ? page : join(dirname(page), path!)
          return !existsSync(target) || (heading !== "" && !headingsOf(target).has(heading!))
        })
        .map(([link]) => `${page}: ${link}`),
    )
    assert.deepStrictEqual(broken, [])
    assert.isAbove(pages.length, 30)
  })

  it("has the same consumer as the README of the client, whose text a test of the package runs", () => {
    const consumerOf = (path: string) => /^```js\n([\s\S]*?)^```$/m.exec(readFileSync(path, "utf8"))?.[1]
    assert.isDefined(consumerOf("README.md"))
    assert.strictEqual(consumerOf("README.md"), consumerOf("clients/typescript/README.md"))
  })

  test(
    "has commands that start the service on a devnet with SQLite and Redis, and examples that read the stream",
    Effect.gen(function* () {
      const devnet = yield* Devnet.start()
      const server = yield* RedisServer.start()
      for (let i = 0; i < 5; i++) yield* devnet.block(3)
      const place = yield* directory
      const run = Effect.fnUntraced(function* (line: string) {
        const here = line.replace("8545", String(devnet.anvil.port)).replace("6379", String(server.port))
        const env = {
          DATABASE_PATH: join(place, "events.db"),
          HTTP_PORT: String(yield* RedisServer.freePort),
        }
        return yield* shell(here, env)
      })

      const starts = commands.filter((line) => line.endsWith("npm start"))
      assert.strictEqual(starts.length, 2)
      for (const line of starts) yield* run(line)
      const stores = [
        yield* Devnet.openSqlite(join(place, "events.db")),
        yield* openRedis(standalone(server.port)),
      ]
      for (const store of stores) {
        yield* Devnet.reached(store, devnet.head)
        yield* Devnet.assertEqual(store, devnet)
      }

      const examples = yield* Effect.forEach(
        commands.filter((line) => line.includes("examples/consume")),
        // Each example has its own group.
        (line, i) => run(`${line.replace("python3", python)} group-${i}`),
      )
      assert.strictEqual(examples.length, 2)
      for (const { says } of examples) yield* says(/^15 logs$/m)
      yield* devnet.reorg(2)
      yield* devnet.block(7)
      yield* Devnet.reached(stores[1]!, devnet.head)
      const replay = yield* replayOf(stores[1]!, Devnet.chainId)
      const live = replay.blocks.reduce((sum, { logs }) => sum + logs.length, 0)
      assert.isAbove(replay.removed, 0)
      for (const { says } of examples) yield* says(new RegExp(`^${live} logs$`, "m"))

      for (const line of commands.filter((line) => line.startsWith("redis-cli"))) {
        const here = line.replace("redis-cli", `redis-cli -p ${server.port}`)
        const printed = execFileSync("bash", ["-c", here]).toString()
        assert.match(printed, /^(OK|\S+)/, line)
        assert.notMatch(printed, /ERR|NOGROUP/, line)
      }
    }),
  )
})
