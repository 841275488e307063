/** The command line, run as a child process. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule, Stream } from "effect"
import type { Scope } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { oneEndpoint } from "../../../src/cli/dialect.ts"
import { knownChains } from "../../../src/config/Chains.ts"
import { commonFields } from "../../../src/Domain.ts"
import type { Block, Hex } from "../../../src/Domain.ts"
import { emptyHead } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import { block, blocks, hash } from "../../support/blocks.ts"
import * as Devnet from "../../support/devnet.ts"
import { directory } from "../../support/directory.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode, Refused, silence } from "../../support/FakeNode.ts"
import type { Intercept } from "../../support/FakeNode.ts"
import { both, drpc, publicnode, without } from "../../support/providers.ts"
import * as RedisServer from "../../support/RedisServer.ts"
import { openRedis, standalone } from "../../support/redisStore.ts"
import * as Service from "../../support/Service.ts"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>, timeout = 30_000) =>
  it.live(title, () => Effect.scoped(body), timeout)

const env = { CHAINS: "devnet", DEVNET_CHAIN_ID: "31337", DEVNET_WS_URL: "ws://127.0.0.1:1" }

const sqlite = (path: string, statement: string) =>
  Effect.sync(() => {
    const database = new DatabaseSync(path)
    database.exec(statement)
    database.close()
  })

/** An empty store of either kind, and the variables that select it. */
const emptyStore = Effect.fnUntraced(function* (kind: "sqlite" | "redis") {
  const server = kind === "redis" ? yield* RedisServer.start() : undefined
  const path = join(yield* directory, "events.db")
  const store = server ? yield* openRedis(standalone(server.port)) : yield* Devnet.openSqlite(path)
  const variables: Record<string, string> = server ? { REDIS_URL: server.url } : { DATABASE_PATH: path }
  return { store, server, variables }
})

/** A store with three blocks, of which the last was retracted and replaced. */
const filled = Effect.fnUntraced(function* (kind: "sqlite" | "redis") {
  const { store, server, variables } = yield* emptyStore(kind)
  for (const move of pushes(emptyHead(10), blocks(10, "a", [2, 0, 1]), false))
    yield* store.push(31337, "none", move)
  const { head } = (yield* store.load(31337))!
  yield* store.pop(31337, "none", { _tag: "Pop", expected: head })
  const below = (yield* store.load(31337))!.head
  const next = [block(11, "b", 0, below.hash as Hex), block(12, "b", 2)]
  for (const move of pushes(below, next, false)) yield* store.push(31337, "none", move)
  return { variables, store, server }
})

describe("the command line", () => {
  test(
    "reports every configuration problem at once and exits with 78",
    Effect.gen(function* () {
      const { code, errors } = yield* Service.run({ env: { CHAINS: "foo", HTTP_PORT: "x", LOG_LEVEL: "y" } })
      assert.strictEqual(code, 78)
      for (const name of ["FOO_CHAIN_ID", "FOO_WS_URL", "HTTP_PORT", "LOG_LEVEL"])
        assert.include(errors, `${name}: expected`)
    }),
  )

  test(
    "exits with 64 on wrong usage, with one line that names the error and points to the help of the command",
    Effect.gen(function* () {
      for (const args of [
        ["nonsense"],
        ["tail", "--nonsense"],
        ["tail", "--chain", "mars"],
        ["tail", "--from", "yesterday"],
        ["tail", "--events", "--json"],
        ["demo", "--seconds", "-1"],
        ["verify", "--from", "7", "--to", "6"],
        ["reset"],
      ]) {
        const { code, output, errors } = yield* Service.run({ args, env })
        assert.strictEqual(code, 64, args.join(" "))
        assert.strictEqual(output, "", args.join(" "))
        const command = args[0] === "nonsense" ? "event-ingestor" : `event-ingestor ${args[0]}`
        assert.match(errors, new RegExp(`^${command}: .* \\(see ${command} --help\\)\\n$`), args.join(" "))
      }
    }),
  )

  test(
    "suggests the command, the flag and the chain that a misspelled one is like",
    Effect.gen(function* () {
      const usage = (...args: ReadonlyArray<string>) =>
        Effect.map(Service.run({ args, env }), ({ errors }) => errors)
      assert.include(yield* usage("vrify"), 'unknown command "vrify"; did you mean verify? (see')
      assert.include(yield* usage("tail", "--folow"), "unknown flag --folow; did you mean --follow? (see")
      assert.include(
        yield* usage("tail", "--chain", "devnt"),
        "--chain: expected one of devnet (CHAINS), got devnt; did you mean devnet? (see",
      )
      const chains = (names: string) =>
        Effect.map(Service.run({ args: ["check"], env: { CHAINS: names } }), ({ errors }) => errors)
      const misspelled = yield* chains("etherium,bse,arb")
      for (const chain of ["ethereum", "base or bsc", "arbitrum"])
        assert.include(misspelled, `not built in; did you mean ${chain}? (built in: ethereum, `)
      assert.include(yield* chains("devnet"), "which is not built in (built in: ethereum, ")
    }),
  )

  test(
    "exits with 69 if the store cannot be opened",
    Effect.gen(function* () {
      const place = yield* directory
      writeFileSync(join(place, "file"), "")
      const { code, errors } = yield* Service.run({
        env: { ...env, DATABASE_PATH: join(place, "file", "events.db") },
      })
      assert.strictEqual(code, 69)
      assert.match(errors, /store open failed/)
    }),
  )

  test(
    "prints help, with examples for every command",
    Effect.gen(function* () {
      const help = yield* Service.run({ args: ["--help"] })
      assert.strictEqual(help.code, 0)
      const verbs = [...help.output.matchAll(/^ {2}(\w+) {3,}/gm)].map(([, verb]) => verb!)
      assert.includeMembers(verbs, ["run", "check", "status", "verify", "tail", "reset", "chains", "demo"])
      for (const verb of verbs) {
        const { output } = yield* Service.run({ args: [verb, "--help"] })
        assert.match(output, new RegExp(`^EXAMPLES\n  # .*\n  .*event-ingestor ${verb}`, "m"), verb)
      }
    }),
  )

  test(
    "prints the version, and the commit of the build or of the clone if it is known",
    Effect.gen(function* () {
      const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string }
      const printed = (entry: string) =>
        Effect.map(Service.run({ args: ["--version"], entry }), ({ output }) => output)
      const described = spawnSync("git", ["describe", "--always", "--abbrev=12", "--exclude=*"])
      const commit = described.status === 0 ? ` (${described.stdout.toString().trim()})` : ""
      for (const entry of [Service.main, "src/start.cjs"])
        assert.strictEqual(
          (yield* printed(entry)).replace("-dirty", ""),
          `event-ingestor v${version}${commit}\n`,
        )

      const copy = yield* directory
      const entry = join(copy, "dist", "start.cjs")
      cpSync(dirname(Service.main), join(copy, "dist"), { recursive: true })
      cpSync("package.json", join(copy, "package.json"))
      symlinkSync(resolve("node_modules"), join(copy, "node_modules"))
      writeFileSync(join(copy, "dist", "commit"), "cafe1234\n")
      assert.strictEqual(yield* printed(entry), `event-ingestor v${version} (cafe1234)\n`)
      writeFileSync(join(copy, "dist", "commit"), "")
      assert.strictEqual(yield* printed(entry), `event-ingestor v${version}\n`)
    }),
  )

  test(
    "lists the built-in chains with their ids, block times, finality and variables, without a valid configuration",
    Effect.gen(function* () {
      const { code, output } = yield* Service.run({ args: ["chains", "--json"], env: { CHAINS: "nonsense" } })
      assert.strictEqual(code, 0)
      const names = output
        .trim()
        .split("\n")
        .map((line) => (JSON.parse(line) as { name: string }).name)
      assert.deepStrictEqual(
        names,
        knownChains.map(({ name }) => name),
      )
      const readable = yield* Service.run({ args: ["chains"] })
      assert.match(readable.output, /^name +chain id +block time +finality +variables +endpoint\n/)
      assert.match(readable.output, /^bsc +56 +0\.75 s +tag, else 64 blocks +BSC_… +needs BSC_WS_URL$/m)
    }),
  )

  test(
    "warns about misspelled variables at startup, and stops cleanly while no endpoint is reachable",
    Effect.gen(function* () {
      const path = join(yield* directory, "events.db")
      const service = yield* Service.start({ env: { ...env, DATABASE_PATH: path, DEVNET_WS_ULR: "x" } })
      yield* service.says(/DEVNET_WS_ULR is not used; did you mean DEVNET_WS_URL\?/)
      yield* service.says(/ECONNREFUSED/)
      service.kill("SIGTERM")
      assert.strictEqual(yield* service.exit, 0)
    }),
  )
})

for (const kind of ["sqlite", "redis"] as const) {
  describe(`tail of ${kind}`, () => {
    test(
      "prints entries with exactly the fields of the stream",
      Effect.gen(function* () {
        const { variables, store } = yield* filled(kind)
        const { code, output } = yield* Service.run({
          args: ["tail", "--json"],
          env: { ...env, ...variables },
        })
        assert.strictEqual(code, 0)
        const printed = output
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as Record<string, string>)
        const stored = yield* Stream.runCollect(store.after(31337))
        assert.deepStrictEqual<unknown>(
          printed,
          stored.map(({ entry }) => entry),
        )
        assert.deepStrictEqual(Object.keys(printed[0]!), [...commonFields])
        assert.deepStrictEqual(
          printed.map((entry) => [entry["block_number"], entry["removed"]]),
          [
            ["10", "false"],
            ["10", "false"],
            ["12", "false"],
            ["12", "true"],
            ["12", "false"],
            ["12", "false"],
          ],
        )
      }),
    )

    test(
      "starts at the given position, and prints readable lines without colours into a pipe",
      Effect.gen(function* () {
        const { variables } = yield* filled(kind)
        const tail = (...args: ReadonlyArray<string>) =>
          Effect.map(Service.run({ args: ["tail", ...args], env: { ...env, ...variables } }), ({ output }) =>
            output.split("\n").filter((line) => line !== ""),
          )
        assert.strictEqual((yield* tail("--chain", "devnet")).length, 6)
        assert.strictEqual((yield* tail("--chain", "31337", "--from", "12")).length, 4)
        assert.strictEqual((yield* tail("--from", "13")).length, 0)
        assert.strictEqual((yield* tail("--from", "now")).length, 0)
        const lines = yield* tail("--from", "start")
        assert.match(
          lines[0]!,
          /^2023-11-14 22:13:30 {2}devnet 10\/0 .* 0x[0-9a-f]{40} {2}- {2}tx 0x[0-9a-f]{8}…[0-9a-f]{4}$/,
        )
        assert.match(lines[3]!, /removed$/)
        assert.notInclude(lines.join(), "\u001b")
      }),
    )

    test(
      "follows new entries until stopped",
      Effect.gen(function* () {
        const { variables, store } = yield* filled(kind)
        const tail = yield* Service.start({
          args: ["tail", "--follow", "--from", "start", "--json"],
          env: { ...env, ...variables },
        })
        yield* tail.says(/"block_number":"12".*"removed":"true"/)
        const { head } = (yield* store.load(31337))!
        for (const move of pushes(head, [block(13, "b", 1)], false)) yield* store.push(31337, "none", move)
        yield* tail.says(/"block_number":"13"/)
        tail.kill("SIGINT")
        assert.strictEqual(yield* tail.exit, 0)
      }),
    )

    test(
      "exits with 0 when its reader closes the pipe",
      Effect.gen(function* () {
        const { variables, store } = yield* filled(kind)
        const { head } = (yield* store.load(31337))!
        for (const move of pushes(head, [block(13, "b", 20_000)], false))
          yield* store.push(31337, "none", move)
        const command = `set -o pipefail; "${process.execPath}" "${Service.main}" tail --json | head -n 1`
        const { status, stdout } = spawnSync("bash", ["-c", command], {
          env: { PATH: process.env["PATH"], ...env, ...variables },
        })
        assert.strictEqual(status, 0)
        assert.strictEqual(JSON.parse(stdout.toString()).log_index, "0")
      }),
    )
  })
}

describe("status and reset", () => {
  const groups = (server: RedisServer.RedisServer) =>
    Effect.promise(() => server.client.xgroup("CREATE", "events:31337", "readers", "0"))

  for (const kind of ["sqlite", "redis"] as const) {
    test(
      `show the journal in ${kind}, and discard it on request`,
      Effect.gen(function* () {
        const { variables, store, server } = yield* filled(kind)
        const run = (...args: ReadonlyArray<string>) => Service.run({ args, env: { ...env, ...variables } })
        if (server) yield* groups(server)
        const before = yield* run("status", "--json")
        assert.strictEqual(before.code, 0)
        const { firstId, lastId } = yield* store.stats(31337)
        const shown = JSON.parse(before.output) as Record<string, unknown>
        assert.deepInclude(shown, {
          chain: "devnet",
          id: 31337,
          head: { number: 12, hash: hash("b", 12) },
          final: null,
          start: { number: 10, hash: hash("a", 10) },
          filter: { fingerprint: "none", since: 10 },
          entries: 6,
          first_id: firstId,
          last_id: lastId,
        })
        assert.strictEqual((shown["groups"] as Array<unknown>).length, server ? 1 : 0)
        assert.deepInclude(shown, { unfinalized: 3, first_number: 10, ingestor_alive_s: null, paused: false })
        const readable = (yield* run("status")).output
        assert.match(readable, /^devnet \(31337\) {2}head 12, final -, start 10, /m)
        if (server)
          assert.match(readable, /group {2}readers: 6 to be delivered, 0 not acknowledged, 0 consumers/)

        const refused = yield* run("reset", "--chain", "devnet")
        assert.strictEqual(refused.code, 64)
        assert.match(refused.errors, /add --yes/)
        assert.strictEqual((yield* run("reset", "--yes")).code, 64)
        assert.strictEqual((yield* run("reset", "--chain", "devnet", "--from", "x", "--yes")).code, 64)
        assert.strictEqual((yield* store.load(31337))!.head.number, 12, "nothing changed so far")

        const from = yield* run("reset", "--chain", "31337", "--from", "11", "--yes", "--json")
        assert.deepStrictEqual(JSON.parse(from.output), {
          chain: "devnet",
          reset: true,
          from: 11,
          deleted: 0,
        })
        assert.deepStrictEqual((yield* store.load(31337))!.head, emptyHead(11))
        assert.strictEqual((yield* store.stats(31337)).entries, 6)
        assert.match(
          (yield* run("reset", "--chain", "devnet", "--delete", "-y")).output,
          /starts again as configured/,
        )
        assert.isUndefined(yield* store.load(31337))
        assert.strictEqual((yield* store.stats(31337)).entries, 0)
        assert.match((yield* run("status")).output, /nothing stored yet/)
        assert.match((yield* run("reset", "--chain", "devnet", "-y")).output, /starts again/)
      }),
      60_000,
    )

    test(
      `start again in ${kind} when the stored journal is inconsistent`,
      Effect.gen(function* () {
        const { variables, store, server } = yield* filled(kind)
        if (server) yield* Effect.promise(() => server.client.del("{events:31337}:head"))
        else {
          const database = new DatabaseSync(variables["DATABASE_PATH"]!)
          database.exec("DELETE FROM heads")
          database.close()
        }
        assert.strictEqual((yield* Effect.flip(store.load(31337))).reason, "corrupt")
        const args = ["reset", "--chain", "devnet", "--delete", "--yes"]
        const { code, errors } = yield* Service.run({ args, env: { ...env, ...variables } })
        assert.strictEqual(code, 0, errors)
        assert.isUndefined(yield* store.load(31337))
        assert.strictEqual((yield* store.stats(31337)).entries, 0)
      }),
    )
  }
})

describe("status", () => {
  const text = (variables: Record<string, string>) =>
    Effect.map(Service.run({ args: ["status"], env: { ...env, ...variables } }), ({ output }) => output)

  test(
    "shows whether an ingestor is running, what readers missed, unknown lags, and the reader that pauses publishing [G-115]",
    Effect.gen(function* () {
      const { server, variables } = yield* emptyStore("redis")
      const { client } = server!
      const group = (name: string, at: string) =>
        Effect.promise(() => client.xgroup("CREATE", "events:31337", name, at, "MKSTREAM"))
      yield* group("slow", "0")
      const fill = Effect.fnUntraced(function* (groups: ReadonlyArray<string>, from: number) {
        const retention = { maxLength: 1000, groups, backlog: 2000 }
        const store = yield* openRedis(standalone(server!.port), "events", retention)
        let head = (yield* store.load(31337))?.head ?? emptyHead(from)
        for (let number = from; number < from + 40; number++) {
          const [move = assert.fail()] = [...pushes(head, [block(number, "a", 100)], true)]
          if ((yield* store.push(31337, "none", move))._tag === "Paused") break
          head = (yield* store.load(31337))!.head
        }
        return store
      })
      yield* fill([], 1)
      const before = yield* text(variables)
      assert.match(before, /^ {2}ingestor unknown: .*the last entry was added \d s ago$/m)
      assert.match(before, /stream \d+ entries \(\d+ older ones trimmed, complete from block \d+ on\)/)
      assert.match(
        before,
        /group {2}slow: \d+ to be delivered, .*, missed [1-9]\d+: trimmed before they were read/,
      )

      // A reader that records its position, and a group whose lag Redis can no longer compute.
      const [first = assert.fail()] = yield* Effect.promise(() =>
        client.xrange("events:31337", "-", "+", "COUNT", 1),
      )
      const seen = Math.floor(Date.now() / 1000) - 300
      const place = JSON.stringify({ id: first[0], block: 7, seen })
      yield* Effect.promise(() => client.hset("{events:31337}:readers", "balances", place))
      yield* group("odd", first[0])
      const store = yield* fill(["slow"], 41)
      yield* Effect.promise(async () => {
        const last = await client.xrevrange("events:31337", "+", "-", "COUNT", 1)
        await client.xdel("events:31337", last[0]![0])
      })
      yield* store.trim(31337)
      const after = yield* text({
        ...variables,
        STREAM_GROUPS: "slow",
        STREAM_MAXLEN: "1000",
        STREAM_BACKLOG: "2000",
      })
      assert.match(after, /^ {2}ingestor last heartbeat \d s ago$/m)
      assert.match(after, /group {2}odd: unknown to be delivered/)
      assert.match(after, /reader balances: at block 7, unknown to be read, seen 5 min ago/)
      assert.match(
        after,
        /^ {2}paused nothing is published: waits for group slow, which has not read \d+ entries; to release it: XGROUP DESTROY events:31337 slow$/m,
      )

      yield* Effect.promise(() => client.hincrby("{events:31337}:head", "alive", -240))
      assert.match(
        yield* text(variables),
        /^ {2}ingestor no heartbeat for 4 min, but an entry was added \d s ago: an ingestor of version 0\.1 may be running$/m,
      )
      yield* Effect.promise(() => client.xtrim("events:31337", "MAXLEN", 0))
      assert.match(yield* text(variables), /^ {2}ingestor no heartbeat for 4 min$/m)
    }),
  )
})

describe("status of a fleet", () => {
  test(
    "lists its members and who follows what, chains that no replica follows, and what is unknown while Redis is away",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const nodes = [new FakeNode(new FakeChain({ id: 501 })), new FakeNode(new FakeChain({ id: 502 }))]
      const [alpha, beta] = yield* Effect.forEach(nodes, (node) => node.serve)
      const variables = {
        CHAINS: "alpha,beta",
        ALPHA_CHAIN_ID: "501",
        BETA_CHAIN_ID: "502",
        ALPHA_WS_URL: alpha!,
        BETA_WS_URL: beta!,
        REDIS_URL: server.url,
        FLEET: "main",
      }
      const run = (...args: ReadonlyArray<string>) =>
        Service.run({ args: ["status", ...args], env: variables })
      const before = (yield* run()).output
      assert.match(before, /^fleet main {2}no replica is a member \(with other chains or filters,/m)
      assert.match(before, /^ {2}no replica follows alpha, beta$/m)

      const replica = yield* Service.start({ env: variables })
      yield* replica.says(/is a member of fleet main/)
      const after = yield* Effect.repeat(run(), {
        until: ({ output }) => /follows alpha, beta$/m.test(output),
        schedule: Schedule.spaced("100 millis"),
      })
      const [, name] = /^fleet main {2}1 member\n {2}(\S+) follows alpha, beta$/m.exec(after.output)!
      assert.notInclude(after.output, "no replica")
      const [fleet, chain, ...none] = (yield* run("--json", "--chain", "beta")).output.trim().split("\n")
      assert.deepStrictEqual(JSON.parse(fleet!), {
        fleet: "main",
        error: null,
        members: [name],
        chains: { beta: name },
      })
      assert.strictEqual(JSON.parse(chain!).chain, "beta")
      assert.deepStrictEqual(none, [])

      server.kill("SIGKILL")
      const away = yield* run()
      assert.strictEqual(away.code, 69)
      assert.match(
        away.output,
        /^fleet main {2}its replicas, and what each follows, are unknown: store fleet list failed \(unreachable\): .*ECONNREFUSED/m,
      )
      assert.match(away.errors, /store load failed/)
    }),
    60_000,
  )
})

describe("verify", () => {
  /** A chain, an empty store for it, and a function that runs `verify`. */
  const verifying = Effect.fnUntraced(function* (kind: "sqlite" | "redis") {
    const chain = new FakeChain()
    const node = new FakeNode(chain)
    const { variables, store, server } = yield* emptyStore(kind)
    const url = yield* node.serve
    const run = (args: ReadonlyArray<string> = [], more: Record<string, string> = {}) =>
      Effect.map(
        Service.run({
          args: ["verify", "--json", ...args],
          env: { ...env, DEVNET_WS_URL: url, ...variables, ...more },
        }),
        ({ code, output, errors }) => ({
          code,
          errors,
          found: output === "" ? undefined : (JSON.parse(output) as Record<string, unknown>),
        }),
      )
    const counts = (found: Record<string, unknown> | undefined) =>
      ["missing", "extra", "different", "faults"].map((kind) => (found![kind] as Array<unknown>).length)
    const push = (blocks: ReadonlyArray<Block>) =>
      Effect.forEach(pushes(emptyHead(0), blocks, false), (move) => store.push(31337, "none", move))
    const remove = (ids: ReadonlyArray<string>) =>
      server
        ? Effect.promise(() => server.client.xdel("events:31337", ...ids))
        : sqlite(variables["DATABASE_PATH"]!, `DELETE FROM events WHERE id IN (${ids.join(",")})`)
    return { chain, node, url, store, server, variables, run, counts, push, remove }
  })

  for (const kind of ["sqlite", "redis"] as const) {
    test(
      `distinguishes missing, extra, different and trimmed logs in ${kind}`,
      Effect.gen(function* () {
        const { chain, node, store, run, counts, push, remove } = yield* verifying(kind)
        chain.extend(...Array.from({ length: 40 }, (_, i) => (i % 3) * 20))
        assert.deepStrictEqual((yield* run()).found, { chain: "devnet", range: null, complete: true })

        yield* push(chain.blocks())
        const whole = yield* run()
        assert.deepInclude(whole.found, { range: [0, 40], complete: true, trimmed: 0 })
        assert.strictEqual(whole.code, 0)
        const part = yield* run(["--from", "11", "--to", "20"])
        assert.deepInclude(part.found, { range: [11, 20], logs: 200, complete: true })

        // The node is on another fork now: the store's logs are extra, the node's logs are missing.
        chain.fork(2, 7, 7)
        const forked = yield* run(["--from", "30"])
        assert.strictEqual(forked.code, 1)
        assert.deepStrictEqual(counts(forked.found), [14, 40, 0, 0])
        assert.deepStrictEqual(counts((yield* run(["--to", "37"])).found), [0, 0, 0, 0])

        // A log with different data.
        node.intercept = (method, _params, proceed) => {
          const answer = proceed() as Array<Record<string, unknown>>
          if (method === "eth_getLogs" && answer.length > 0) answer[0] = { ...answer[0], data: "0x99" }
          return answer
        }
        const different = yield* run(["--from", "10", "--to", "12"])
        assert.deepStrictEqual([different.code, ...counts(different.found)], [1, 0, 0, 1, 0])
        node.intercept = (_method, _params, proceed) => proceed()

        // Entries deleted from the middle are missing; entries before the oldest remaining one count as trimmed.
        const entries = yield* Stream.runCollect(store.after(31337))
        yield* remove(entries.slice(0, 30).map(({ id }) => id))
        const trimmed = yield* run(["--to", "30"])
        assert.deepInclude(trimmed.found, { trimmed: 30, complete: true })
        yield* remove([entries[100]!.id, entries[101]!.id])
        const holed = yield* run(["--to", "30"])
        assert.deepStrictEqual([holed.code, ...counts(holed.found)], [1, 2, 0, 0, 0])

        const outside = yield* run(["--from", "999999"])
        assert.strictEqual(outside.code, 1)
        assert.deepInclude(outside.found, { range: null, complete: false })
        const [{ why } = assert.fail()] = outside.found!["not_there"] as ReadonlyArray<{ why: string }>
        assert.match(why, /^the last stored block is \d+$/)

        node.up = false
        node.drop()
        assert.strictEqual((yield* run()).code, 69)
      }),
      60_000,
    )

    test(
      `verifies ${kind} only from where the journal begins, after a reset and after a filter change`,
      Effect.gen(function* () {
        const { chain, store, run, push } = yield* verifying(kind)
        chain.extend(...Array.from({ length: 20 }, () => 3))
        yield* push(chain.blocks().map((block) => ({ ...block, logs: block.logs.slice(1) })))
        assert.strictEqual((yield* run()).code, 1)
        yield* store.reset(31337, { from: 5, filter: "none", delete: false })
        const head = (yield* store.load(31337))!.head
        for (const move of pushes(head, chain.blocks(5, 12), false)) yield* store.push(31337, "none", move)
        const after = yield* run()
        assert.deepInclude(after.found, { range: [5, 12], logs: 24, trimmed: 0, faults: [], complete: true })
        assert.deepInclude((yield* run(["--from", "9"])).found, { range: [9, 12], complete: true })
        yield* store.changeFilter(31337, "other")
        const { head: top, filterSince } = (yield* store.load(31337))!
        assert.strictEqual(filterSince, 13)
        for (const move of pushes(top, chain.blocks(13, 20), false)) yield* store.push(31337, "other", move)
        assert.deepInclude((yield* run()).found, { range: [13, 20], logs: 24, complete: true })
      }),
      60_000,
    )

    test(
      `never counts logs above the oldest entry of ${kind} as trimmed`,
      Effect.gen(function* () {
        const { chain, store, run, push, remove } = yield* verifying(kind)
        chain.extend(...Array.from({ length: 40 }, () => 3))
        const isLost = ({ number }: Block) => (number >= 20 && number < 25) || number >= 38
        yield* push(chain.blocks().map((block) => (isLost(block) ? { ...block, logs: [] } : block)))
        const entries = yield* Stream.runCollect(store.after(31337))
        const below = entries.filter(({ entry }) => Number(entry.block_number) < 5)
        yield* remove([...below, entries[below.length]!].map(({ id }) => id))

        for (const [args, trimmed, missing] of [
          [["--from", "0", "--to", "30"], 13, 15],
          [["--from", "20", "--to", "30"], 0, 15],
          [["--from", "2"], 10, 24],
          [["--from", "38"], 0, 9],
          [["--to", "4"], 12, 0],
          [["--to", "30"], 13, 15],
        ] as const) {
          const { code, found } = yield* run(args)
          assert.deepStrictEqual(
            [args, found!["trimmed"], (found!["missing"] as Array<unknown>).length, code],
            [args, trimmed, missing, 1],
          )
          // None of these blocks is stored.
          if (missing === 0) assert.deepInclude(found, { matches: true, complete: false })
        }
      }),
      60_000,
    )
  }

  test(
    "shows for a trimmed stream what is complete, trimmed, not stored, and missed by readers [G-114]",
    Effect.gen(function* () {
      const { chain, url, run, server, store, variables } = yield* verifying("redis")
      const { client } = server!
      chain.extend(...Array.from({ length: 60 }, () => 100))
      yield* Effect.promise(() => client.xgroup("CREATE", "events:31337", "slow", "0", "MKSTREAM"))
      const trimming = yield* openRedis(standalone(server!.port), "events", 1000)
      for (const move of pushes(emptyHead(0), chain.blocks(), true)) yield* trimming.push(31337, "none", move)
      while ((yield* trimming.trim(31337)).dropped > 0);
      const { firstNumber: first, trimmed } = yield* store.stats(31337)
      assert.isAbove(trimmed, 4000)
      const missed = [{ reader: "group slow", entries: trimmed }]

      const whole = yield* run()
      assert.strictEqual(whole.code, 0)
      assert.deepInclude(whole.found, { range: [first, 60], first, trimmed_entries: trimmed, missed })
      assert.deepInclude(whole.found, { complete: true, not_there: [] })
      // The stored part of the range is verified, and the rest is reported.
      const parts = yield* run(["--from", "0", "--to", "999999"])
      assert.strictEqual(parts.code, 1)
      assert.deepInclude(parts.found, { range: [first, 60], matches: true, complete: false })
      const notThere = parts.found!["not_there"] as ReadonlyArray<{ from: number; to: number }>
      assert.deepStrictEqual(
        notThere.map(({ from, to }) => [from, to]),
        [
          [0, first! - 1],
          [61, 999_999],
        ],
      )
      for (const args of [
        ["--to", "5"],
        ["--from", "3", "--to", "9"],
        ["--from", "61"],
      ]) {
        const { code, found } = yield* run(args)
        assert.deepStrictEqual([code, found!["range"], found!["complete"]], [1, null, false], args.join(" "))
      }
      assert.strictEqual((yield* run(["--from", String(first), "--to", "60"])).code, 0)

      const readable = (args: ReadonlyArray<string>) =>
        Effect.map(
          Service.run({ args: ["verify", ...args], env: { ...env, DEVNET_WS_URL: url, ...variables } }),
          ({ output }) => output,
        )
      const thousands = String(trimmed).replace(/(\d)(\d{3})$/, "$1 $2")
      const shown = yield* readable([])
      assert.include(shown, `complete from block ${first} on; ${thousands} older entries trimmed`)
      assert.include(shown, `missed: group slow: ${thousands} entries`)
      const above = yield* readable(["--to", "999999"])
      assert.include(above, "NOT complete")
      assert.include(above, "not stored: blocks 61 … 999999: the last stored block is 60")

      const nothing = yield* run(["--from", "1"], { STREAM_PREFIX: "other" })
      assert.deepStrictEqual([nothing.code, nothing.found!["complete"]], [1, false])
    }),
    60_000,
  )

  test(
    "reads finalized and unfinalized blocks with whatever methods an endpoint supports",
    Effect.gen(function* () {
      const { chain, node, url, store, run, push } = yield* verifying("sqlite")
      chain.extend(...Array.from({ length: 90 }, (_, i) => (i * 7) % 5))
      yield* push(chain.blocks())
      const { head } = (yield* store.load(31337))!
      const { number, hash } = chain.at(60)!.header
      yield* store.finalize(31337, "none", { _tag: "Finalize", expected: head, number, hash })
      const expected = { complete: true, logs: chain.blocks().flatMap(({ logs }) => logs).length }

      const capped: Intercept = (method, _params, proceed) => {
        const answer = proceed() as ReadonlyArray<unknown>
        if (method === "eth_getLogs" && answer.length > 20)
          throw new Refused(-32005, "query returned too many results")
        return answer
      }
      const single = both(publicnode(node), without("eth_getBlockReceipts"))
      const ways = { capped, drpc, publicnode: publicnode(node), single }
      for (const [way, intercept] of Object.entries(ways)) {
        node.intercept = intercept
        const { code, found, errors } = yield* run()
        assert.deepStrictEqual([way, code, errors], [way, 0, ""])
        assert.deepInclude(found, expected)
      }

      // Large responses cost the connection, and the second endpoint continues when the first one fails.
      node.intercept = (_method, _params, proceed) => proceed()
      const before = node.connections
      const other = yield* run([], { DEVNET_WS_URL: `ws://127.0.0.1:1,${url}`, WS_MAX_PAYLOAD: "40000" })
      assert.isAbove(node.connections - before, 1)
      assert.deepInclude(other.found, expected)

      const socket = new FakeNode(chain)
      socket.intercept = without("eth_getLogs", "eth_getBlockReceipts", "eth_getTransactionReceipt")
      const http = yield* run([], {
        DEVNET_WS_URL: yield* socket.serve,
        DEVNET_RPC_URL: url.replace("ws:", "http:"),
      })
      assert.deepInclude(http.found, expected)
    }),
    60_000,
  )
})

describe("check", () => {
  /** Mines a block when a client subscribes to heads. */
  const mining = (node: FakeNode, logs = 2) => {
    const { intercept } = node
    node.intercept = (method, params, proceed) => {
      if (method === "eth_subscribe" && params[0] === "newHeads") setImmediate(() => node.chain.extend(logs))
      return intercept(method, params, proceed)
    }
  }

  const findings = (output: string) =>
    output
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { subject: string; level: string; detail: string; fix?: string })

  test(
    "reports what endpoints and store can do, without secrets",
    Effect.gen(function* () {
      const server = yield* RedisServer.start(["--requirepass", "hunter2"])
      const node = new FakeNode(new FakeChain())
      node.chain.extend(...Array.from({ length: 30 }, () => 4))
      mining(node)
      const url = `${yield* node.serve}/SECRETKEY123`
      const variables = {
        ...env,
        DEVNET_WS_URL: url,
        REDIS_URL: `redis://:hunter2@127.0.0.1:${server.port}`,
        METRICS_TOKEN: "t0ken",
      }
      const check = yield* Service.run({ args: ["check", "--json"], env: variables })
      assert.strictEqual(check.code, 0, check.output)
      const all = findings(check.output)
      const detail = (subject: string) =>
        all.filter((one) => one.subject === subject).map((one) => one.detail)
      const endpoint = all.find(({ detail }) => detail.startsWith("chain 31337, head"))
      assert.strictEqual(endpoint!.detail, "chain 31337, head 30")
      assert.deepStrictEqual(detail(endpoint!.subject).slice(1), [
        "heads: subscribed, block 31 was announced",
        "eth_getLogs: single blocks and ranges up to 10 wide",
        "eth_getBlockReceipts: yes",
        "finality: by the finalized tag, block 0",
        "batches: at least 20 headers",
        "logsBloom: fetched usable, announced usable",
        "log indexes: per block, from 0",
      ])
      assert.deepStrictEqual(
        all.filter(({ detail }) => detail === oneEndpoint).map(({ subject, level }) => [subject, level]),
        [["config devnet", "warning"]],
      )
      assert.match(detail("store")[0]!, /^(redis|valkey) \d/)
      assert.deepStrictEqual(detail("store access"), ["reading and writing are allowed"])
      assert.strictEqual(all.find(({ subject }) => subject === "store persistence")?.level, "warning")
      const readable = yield* Service.run({ args: ["check"], env: variables })
      assert.match(readable.output, /^✓ store access/m)
      for (const text of [check.output, readable.output]) {
        assert.notMatch(text, /SECRETKEY123|hunter2|t0ken/)
        assert.notInclude(text, "\u001b")
      }
    }),
  )

  test(
    "reports each failure with a fix and exits with 69",
    Effect.gen(function* () {
      const wrong = new FakeNode(new FakeChain({ id: 5 }))
      const picky = new FakeNode(new FakeChain())
      picky.chain.extend(1)
      picky.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs" && !("address" in (params[0] as object))) {
          throw new Refused(-32701, "Please specify an address in your request")
        }
        if (method === "eth_getBlockByNumber" && params[0] === "finalized")
          throw new Refused(-32602, "unknown tag")
        return proceed()
      }
      // No blooms, no large batches, no block receipts.
      const poor = new FakeNode(new FakeChain())
      poor.chain.blooms = false
      poor.chain.extend(1, 2, 3, 4, 5, 6)
      poor.mostCalls = 3
      poor.intercept = (method, _params, proceed) => {
        if (/getLogs|BlockReceipts/.test(method)) throw new Refused(-32601, "the method does not exist")
        return proceed()
      }
      mining(picky)
      mining(poor)
      const urls = ["ws://127.0.0.1:1", yield* wrong.serve, yield* picky.serve, yield* poor.serve]
      const overHttp = urls.slice(1, 3).map((url) => url.replace("ws:", "http:"))
      const variables = {
        ...env,
        DEVNET_WS_URL: urls.join(","),
        DEVNET_RPC_URL: overHttp.join(","),
        REDIS_URL: "redis://127.0.0.1:1",
      }
      const { code, output } = yield* Service.run({ args: ["check", "--json"], env: variables })
      assert.strictEqual(code, 69)
      const failures = findings(output).filter(({ level }) => level === "failure")
      assert.deepStrictEqual(failures.map(({ detail, fix }) => [detail, fix !== undefined]).sort(), [
        ["connection lost: connect ECONNREFUSED 127.0.0.1:1", true],
        ["serves chain 5, not 31337", true],
        ["serves chain 5, not 31337", true],
        ["store info failed (unreachable): connect ECONNREFUSED 127.0.0.1:1", true],
      ])
      assert.strictEqual(
        output.match(/Please specify an address in your request: logs are read from receipts/g)?.length,
        2,
        "over the WebSocket and over HTTP",
      )
      assert.match(
        output,
        /finality: by depth, 64 blocks: eth_getBlockByNumber was refused \(-32602\): unknown tag/,
      )
      assert.notInclude(output, oneEndpoint)
      assert.match(
        output,
        /does not exist: logs are read from the logs subscription at the tip, else receipt/,
      )
      assert.match(output, /batches: up to 2 headers/)
      assert.match(
        output,
        /logsBloom: fetched zero, announced zero \(a block without logs\); the logs of every block are fetched/,
      )
    }),
  )

  test(
    "waits for a head, and reports how heads are delivered and why",
    Effect.gen(function* () {
      const node = () => {
        const one = new FakeNode(new FakeChain({ blockTime: 1 }))
        one.chain.extend(1, 2, 3)
        return one
      }
      const idle = node()
      const mute = node()
      mute.announces = false
      let subscribed = false
      // A block is mined after each request for the latest block.
      mute.intercept = (method, params, proceed) => {
        if (method === "eth_subscribe") subscribed = true
        if (subscribed && params[0] === "latest") setImmediate(() => mute.chain.extend(1))
        return proceed()
      }
      const refusing = node()
      refusing.intercept = (method, _params, proceed) => {
        if (method === "eth_subscribe") throw new Refused(-32601, "notifications not supported")
        return proceed()
      }
      const urls = [yield* idle.serve, yield* mute.serve, yield* refusing.serve]
      const { code, output } = yield* Service.run({
        args: ["check", "--json"],
        env: {
          CHAINS: "devnet,other",
          DEVNET_CHAIN_ID: "31337",
          DEVNET_WS_URL: [...urls, urls[0]!.replace("ws:", "http:")].join(","),
          DEVNET_RPC_URL: urls[1]!.replace("ws:", "http:"),
          DEVNET_POLL_INTERVAL: "3s",
          OTHER_CHAIN_ID: "31338",
          OTHER_WS_URL: yield* new FakeNode(new FakeChain({ id: 31338 })).serve,
          OTHER_HEADS: "poll",
          DATABASE_PATH: join(yield* directory, "events.db"),
        },
      })
      assert.strictEqual(code, 69)
      const heads = findings(output).filter(({ detail }) => detail.startsWith("heads: "))
      const shown = heads.map(({ level, detail, fix }) => [
        level,
        detail.replace(/\d+ days old/, "N days old"),
        fix,
      ])
      assert.sameDeepMembers(shown, [
        [
          "warning",
          "heads: subscribed; the chain is idle: block 3, N days old, was the latest for 5 s",
          undefined,
        ],
        [
          "failure",
          "heads: subscribed, but no head was announced: the latest block went from 3 to 4 in 5 s",
          "set DEVNET_HEADS=poll, or use another endpoint",
        ],
        [
          "ok",
          "heads: polled every 3 s, because eth_subscribe was refused (-32601): notifications not supported",
          undefined,
        ],
        ["ok", "heads: polled every 3 s, because HTTP endpoints announce none", undefined],
        ["ok", "heads: polled every 3 s, while no WebSocket is connected", undefined],
        ["ok", "heads: polled every 1 s, because OTHER_HEADS=poll is set", undefined],
      ])
    }),
  )

  test(
    "respects RPC_RATE",
    Effect.gen(function* () {
      const node = new FakeNode(new FakeChain())
      node.chain.extend(4, 4)
      const times: Array<number> = []
      node.intercept = (_method, _params, proceed) => {
        times.push(performance.now())
        return proceed()
      }
      mining(node)
      const { code, output } = yield* Service.run({
        args: ["check", "--json"],
        env: {
          ...env,
          DEVNET_WS_URL: yield* node.serve,
          RPC_RATE: "10",
          DATABASE_PATH: join(yield* directory, "events.db"),
        },
      })
      assert.strictEqual(code, 0, output)
      // The first second's tokens may be used at once.
      assert.isAbove(times.length, 14)
      assert.isAbove(times.at(-1)! - times[0]!, ((times.length - 10) / 10) * 1000 - 150)
    }),
  )

  test(
    "splits a list of addresses as the service does",
    Effect.gen(function* () {
      const refusing = new FakeNode(new FakeChain())
      refusing.chain.extend(1, 2, 3)
      refusing.intercept = (method, params, proceed) => {
        const { address = [] } = (params[0] ?? {}) as { address?: ReadonlyArray<string> }
        if (method === "eth_getLogs" && address.length > 10) throw new Refused(-32602, "Request blocked")
        return proceed()
      }
      // Rejects requests of more than 1 000 characters: 25 addresses as well as 20 headers.
      const leaving = new FakeNode(refusing.chain)
      leaving.mostCharacters = 1000
      // Accepts all addresses, but no blockHash.
      const old = new FakeNode(refusing.chain)
      old.intercept = (method, params, proceed) => {
        if (method === "eth_getLogs" && "blockHash" in (params[0] as object))
          throw new Refused(-32602, "invalid argument 0: blockHash is not known")
        return proceed()
      }
      for (const node of [refusing, leaving, old]) mining(node)
      const urls = [yield* refusing.serve, yield* leaving.serve, yield* old.serve]
      const { code, output } = yield* Service.run({
        args: ["check", "--json"],
        env: {
          ...env,
          DEVNET_WS_URL: urls.join(","),
          DEVNET_ADDRESSES: Array.from({ length: 25 }, (_, i) => hash("address", i).slice(0, 42)).join(","),
          DATABASE_PATH: join(yield* directory, "events.db"),
        },
      })
      assert.strictEqual(code, 0, output)
      const logs = findings(output).filter(({ detail }) => detail.startsWith("eth_getLogs"))
      assert.sameMembers(
        logs.map(({ level, detail }) => `${level}: ${detail}`),
        [
          "; at most 7 of 25 addresses per call, in 4 calls",
          "; at most 13 of 25 addresses per call, in 2 calls",
          "; by height, because blockHash is refused",
        ].map((how) => `ok: eth_getLogs: single blocks and ranges up to 1 wide${how}`),
      )
    }),
  )

  test(
    "reports how an endpoint deviates, and what is not supported",
    Effect.gen(function* () {
      const node = (announced?: FakeNode["announced"]) => {
        const one = new FakeNode(new FakeChain({ finality: 0 }))
        one.chain.extend(4, 3, 6)
        if (announced) one.announced = announced
        return one
      }
      const zeros = node((header) => ({ ...header, logsBloom: `0x${"0".repeat(512)}` }))
      // Log indexes start at 0 in each transaction.
      const renumbered = node()
      renumbered.intercept = (method, _params, proceed) => {
        const answer = proceed()
        if (method !== "eth_getLogs") return answer
        const next = new Map<string, number>()
        return (answer as ReadonlyArray<{ transactionHash: string }>).map((log) => {
          const index = next.get(log.transactionHash) ?? 0
          next.set(log.transactionHash, index + 1)
          return { ...log, logIndex: index }
        })
      }
      // Blooms of all ones, gaps in the indexes, no logs without an address, nothing final.
      const odd = node((header) => ({ ...header, logsBloom: `0x${"f".repeat(512)}` }))
      odd.intercept = (method, params, proceed) => {
        if (params[0] === "finalized") throw new Refused(-39001, "finalized block not found")
        if (method === "eth_getLogs" && !("address" in (params[0] as object)))
          throw new Refused(-32701, "Please specify an address in your request")
        const answer = proceed()
        if (method === "eth_getBlockByNumber") return { ...(answer as object), logsBloom: null }
        if (method !== "eth_getBlockReceipts") return answer
        const receipts = answer as ReadonlyArray<{ logs: ReadonlyArray<{ logIndex: string }> }>
        return receipts.map(({ logs }) => ({
          logs: logs.map((log) => ({ ...log, logIndex: Number(log.logIndex) * 2 })),
        }))
      }
      for (const one of [zeros, renumbered, odd]) mining(one)
      const traits = Effect.fnUntraced(function* (one: FakeNode, variables: Record<string, string> = {}) {
        const { output } = yield* Service.run({
          args: ["check", "--json"],
          env: {
            ...env,
            ...variables,
            DEVNET_WS_URL: yield* one.serve,
            DATABASE_PATH: join(yield* directory, "events.db"),
          },
        })
        return findings(output)
          .filter(
            ({ subject, detail }) =>
              subject.startsWith("devnet") && /^(finality|logsBloom|log ind)/.test(detail),
          )
          .map(({ level, detail }) => `${level}: ${detail}`)
      })
      assert.deepStrictEqual(yield* traits(zeros, { DEVNET_FINALITY: "depth" }), [
        "ok: finality: by depth, 64 blocks (DEVNET_FINALITY=depth)",
        "ok: logsBloom: fetched usable, announced zero",
        "ok: log indexes: per block, from 0",
      ])
      assert.deepStrictEqual(yield* traits(renumbered), [
        "ok: finality: by the finalized tag, block 3, which is the latest",
        "ok: logsBloom: fetched usable, announced usable",
        "failure: log indexes: from 0 in each transaction (block 3): logs that share an index have no identity, which is not supported",
      ])
      assert.deepStrictEqual(yield* traits(odd), [
        "ok: finality: by the finalized tag, nothing is final yet: eth_getBlockByNumber was refused (-39001): finalized block not found",
        "ok: logsBloom: fetched missing, announced all ones; the logs of every block are fetched until a usable bloom is seen",
        "ok: log indexes: per block, with gaps (block 3), accepted if the receipts have the same gaps",
      ])
    }),
  )

  test(
    "fails even if its output is not read",
    Effect.sync(() => {
      const command = `set -o pipefail; "${process.execPath}" "${Service.main}" check --json | true`
      const { status } = spawnSync("bash", ["-c", command], {
        env: { PATH: process.env["PATH"], ...env, DEVNET_WS_URL: "ws://127.0.0.1:1" },
      })
      assert.strictEqual(status, 69)
    }),
  )

  test(
    "does not fail an endpoint for a range that exceeds a frame or times out",
    Effect.gen(function* () {
      const node = new FakeNode(new FakeChain())
      node.chain.extend(...Array.from({ length: 120 }, () => 10))
      const slow = new FakeNode(node.chain)
      slow.intercept = (method, params, proceed) => {
        const { fromBlock } = (params[0] ?? {}) as Record<string, string>
        return method === "eth_getLogs" && fromBlock === "0x15" ? silence : proceed()
      }
      mining(node, 10)
      mining(slow, 10)
      const urls = [yield* node.serve, yield* slow.serve]
      const variables = {
        ...env,
        DEVNET_WS_URL: urls.join(","),
        DEVNET_RPC_URL: urls.map((url) => url.replace("ws:", "http:")).join(","),
        WS_MAX_PAYLOAD: "100000",
        REQUEST_TIMEOUT: "1s",
      }
      const { code, output } = yield* Service.run({ args: ["check", "--json"], env: variables })
      assert.strictEqual(code, 0, output)
      const ranges = findings(output).filter(({ detail }) => detail.startsWith("eth_getLogs"))
      assert.strictEqual(ranges.length, 4)
      for (const { level, detail } of ranges) {
        assert.strictEqual(level, "ok")
        assert.match(
          detail,
          /ranges up to 10 wide; wider: (frame larger|.*of more than|.*1000 ms|.*no answer)/,
        )
      }
      assert.strictEqual(output.match(/logsBloom: fetched usable/g)?.length, 4)
    }),
  )

  test(
    "reports a start block above the head as a failure that names the variable",
    Effect.gen(function* () {
      const node = new FakeNode(new FakeChain())
      node.chain.extend(...Array.from({ length: 5 }, () => 1))
      mining(node)
      const variables = {
        ...env,
        DEVNET_WS_URL: yield* node.serve,
        DATABASE_PATH: join(yield* directory, "events.db"),
      }
      const check = (startBlock: string) =>
        Service.run({ args: ["check"], env: { ...variables, DEVNET_START_BLOCK: startBlock } })
      const { code, output } = yield* check("999999")
      assert.strictEqual(code, 69)
      assert.match(output, /✗ .* DEVNET_START_BLOCK .* is 999999, above the chain's head, which is block 5/)
      assert.strictEqual((yield* check("5")).code, 0)

      // A chain with a journal resumes from it and ignores START_BLOCK.
      const running = yield* Service.start({ env: variables })
      yield* running.says(/live at block/)
      running.kill("SIGTERM")
      assert.strictEqual(yield* running.exit, 0)
      const resumed = yield* check("999999")
      assert.strictEqual(resumed.code, 0, resumed.output)
      assert.notMatch(resumed.output, /START_BLOCK/)
    }),
  )

  test(
    "warns about an eviction policy that deletes streams, and about too little memory",
    Effect.gen(function* () {
      const server = yield* RedisServer.start([
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--appendonly",
        "yes",
      ])
      const { code, output } = yield* Service.run({ args: ["check"], env: { ...env, REDIS_URL: server.url } })
      assert.strictEqual(code, 69)
      assert.match(
        output,
        /^! store eviction +maxmemory-policy is allkeys-lru {2}→ set maxmemory-policy noeviction/m,
      )
      assert.match(
        output,
        /^! store size +0\.6 GiB to 1\.6 GiB for 1 chain of 1 000 000 entries \(0\.6 to 1\.7 kB each\), and 80 % of maxmemory is 0\.08 GiB {2}→ raise maxmemory to 2\.0 GiB or lower STREAM_MAXLEN to 49 344$/m,
      )
      assert.match(output, /^✓ store persistence +append-only file/m)
    }),
  )
})

describe("colours and completions", () => {
  test(
    "are used on terminals only, unless NO_COLOR is set",
    Effect.gen(function* () {
      const { variables } = yield* filled("sqlite")
      // `script` runs a program with a terminal.
      const onTerminal = (extra: Record<string, string>) =>
        spawnSync("script", ["-qec", `"${process.execPath}" "${Service.main}" status`, "/dev/null"], {
          env: { PATH: process.env["PATH"], TERM: "xterm", ...env, ...variables, ...extra },
        }).stdout.toString()
      assert.include(onTerminal({}), "\u001b[1mdevnet (31337)\u001b[0m")
      assert.notInclude(onTerminal({ NO_COLOR: "1" }), "\u001b[1m")
    }),
  )

  for (const shell of ["bash", "zsh", "fish"]) {
    test(
      `work in ${shell}`,
      Effect.gen(function* () {
        const { code, output } = yield* Service.run({ args: ["--completions", shell] })
        assert.strictEqual(code, 0)
        for (const word of ["event-ingestor", "tail", "status", "reset", "check", "follow"])
          assert.include(output, word)
      }),
    )
  }
})

describe("demo", () => {
  test(
    "ends after --seconds with complete journals and at least one reorg",
    Effect.gen(function* () {
      const { code, output } = yield* Service.run({ args: ["demo", "--seconds", "12"] })
      assert.strictEqual(code, 0, output)
      assert.match(output, /^devnet-a {2}state live .* breaker closed$/m)
      assert.strictEqual(output.match(/^ {2}complete: yes$/gm)?.length, 2, output)
      assert.match(output, /devnet-a: .* of them retractions by [1-9]\d* reorg/)
      assert.notMatch(output, /connection/)
    }),
    60_000,
  )

  test(
    "stops with a summary on Ctrl-C, and at once on a second one",
    Effect.gen(function* () {
      const first = yield* Service.start({ args: ["demo"] })
      yield* first.says(/devnet-b {2}state live/)
      first.kill("SIGINT")
      assert.strictEqual(yield* first.exit, 0)
      assert.strictEqual(first.output().match(/complete: yes/g)?.length, 2)

      // Frozen nodes delay the shutdown.
      const freeze = (parent: number) => {
        const children = execFileSync("pgrep", ["-P", String(parent)])
          .toString()
          .trim()
          .split("\n")
        for (const pid of children) process.kill(Number(pid), "SIGSTOP")
        return children.length
      }
      const second = yield* Service.start({ args: ["demo"] })
      yield* second.says(/devnet-b {2}state live/)
      assert.strictEqual(freeze(second.pid), 2)
      // Two signals sent at once may be delivered as one.
      const again = Effect.repeat(
        Effect.sync(() => second.kill("SIGTERM")),
        Schedule.spaced("50 millis"),
      )
      assert.strictEqual(yield* Effect.raceFirst(second.exit, again), 143)

      const third = yield* Service.start({ args: ["demo"], env: { SHUTDOWN_TIMEOUT: "1s" } })
      yield* third.says(/devnet-b {2}state live/)
      freeze(third.pid)
      third.kill("SIGTERM")
      assert.strictEqual(yield* third.exit, 1)
      assert.match(third.errors(), /shutdown took longer than SHUTDOWN_TIMEOUT/)
    }),
    60_000,
  )

  test(
    "uses only its own prefix in Redis, starts from scratch each time, and exits with 1 if a log is missing",
    Effect.gen(function* () {
      const server = yield* RedisServer.start()
      const { client, url } = server
      yield* Effect.promise(() => client.xadd("events:31337", "1-1", "chain_id", "31337"))
      yield* Effect.promise(() => client.xadd("demo:31337", "1-1", "chain_id", "31337"))
      for (const spoil of [false, true]) {
        const demo = yield* Service.start({ args: ["demo"], env: { REDIS_URL: url } })
        yield* demo.says(/devnet-b {2}state live/)
        if (spoil) {
          const last = yield* Effect.promise(() => client.xrevrange("demo:31338", "+", "-", "COUNT", 1))
          const [id] = last[0]!
          yield* Effect.promise(() => client.xdel("demo:31338", id))
        }
        demo.kill("SIGINT")
        assert.strictEqual(yield* demo.exit, spoil ? 1 : 0, demo.output())
        if (spoil) assert.match(demo.output(), /missing 1, extra 0, .*\n {2}complete: NO/)
        else assert.strictEqual(demo.output().match(/complete: yes/g)?.length, 2)
      }
      assert.strictEqual(yield* Effect.promise(() => client.xlen("events:31337")), 1)
      const keys = yield* Effect.promise(() => client.keys("*"))
      assert.isTrue(
        keys.every((key) => key === "events:31337" || /^\{?demo:/.test(key)),
        keys.join(),
      )
    }),
    60_000,
  )

  test(
    "only generates traffic with --against",
    Effect.gen(function* () {
      const devnet = yield* Devnet.start()
      yield* Service.start({ args: ["demo", "--against", devnet.anvil.url] })
      const logs = Effect.gen(function* () {
        yield* devnet.node.request("evm_mine", [])
        return (yield* devnet.node.request("eth_getLogs", [{ fromBlock: "0x0" }])) as ReadonlyArray<unknown>
      })
      yield* Effect.repeat(logs, { until: (found) => found.length > 50 })
    }),
  )
})

describe("the build", () => {
  test(
    "runs under plain Node",
    Effect.gen(function* () {
      assert.match(Service.main, /\/dist\/start\.cjs$/)
      const { code, output } = yield* Service.run({ args: ["--help"] })
      assert.strictEqual(code, 0)
      assert.include(output, "USAGE")
      const path = join(yield* directory, "events.db")
      const service = yield* Service.start({ env: { ...env, DATABASE_PATH: path } })
      yield* service.says(/ECONNREFUSED/)
      service.kill("SIGTERM")
      assert.strictEqual(yield* service.exit, 0)
    }),
    60_000,
  )
})
