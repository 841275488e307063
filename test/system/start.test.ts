/** Starting and stopping the service: through npm, through a link, and with a Node that is too old. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { once } from "node:events"
import { readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { transform } from "rolldown/utils"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { jsonFrom } from "../support/http.ts"
import * as Service from "../support/Service.ts"
import { shell } from "../support/shell.ts"

const isGone = (group: number) => {
  try {
    process.kill(-group, 0)
    return false
  } catch {
    return true
  }
}

const node = Effect.suspend(() => {
  const node = new FakeNode(new FakeChain())
  node.chain.extend(1, 2)
  return Effect.map(node.serve, (url) => ({ chain: node.chain, url }))
})

describe("the service", () => {
  for (const [what, to] of [
    ["SIGTERM to npm", (npm: number) => process.kill(npm, "SIGTERM")],
    ["Ctrl-C (SIGINT to npm and all its children)", (npm: number) => process.kill(-npm, "SIGINT")],
  ] as const) {
    it.live(`stops with exit code 0 under npm start: ${what} [G-180]`, () =>
      Effect.gen(function* () {
        const { url } = yield* node
        const path = join(yield* directory, "events.db")
        const env = Devnet.environment(url, { DATABASE_PATH: path, HTTP_PORT: "0" })
        const { child, output, says } = yield* shell("exec npm start", env)
        yield* says(/status at http/)
        const exit = once(child, "exit")
        to(child.pid!)
        const [code, signal] = yield* Effect.promise(() => exit)
        assert.deepStrictEqual([code, signal], [0, null], output())
        assert.match(
          output(),
          /"event":"stopped","message":"stopped cleanly in \d+(\.\d)? s","seconds":\d+(\.\d)?}\n$/,
        )
        yield* Effect.repeat(
          Effect.sync(() => isGone(child.pid!)),
          { until: (gone) => gone, schedule: Schedule.spaced("20 millis") },
        ).pipe(Effect.timeout("3 seconds"))
      }).pipe(Effect.scoped),
    )
  }

  it.live(
    "compares its stores with the nodes after one Ctrl-C under npm run demo, which npm forwards a second time",
    () =>
      Effect.gen(function* () {
        const { child, output, says } = yield* shell("exec npm run demo", {})
        yield* says(/devnet-b {2}state live/)
        const exit = once(child, "exit")
        process.kill(-child.pid!, "SIGINT")
        assert.deepStrictEqual(yield* Effect.promise(() => exit), [0, null], output())
        assert.strictEqual(output().match(/^ {2}complete: yes$/gm)?.length, 2, output())
      }).pipe(Effect.scoped),
    60_000,
  )

  it("prints one line with the remedy on an old Node, in syntax that Node 12 can parse [G-182]", () =>
    Effect.gen(function* () {
      const place = yield* directory
      const old = join(place, "old.cjs")
      const ask = (version: string) => {
        writeFileSync(old, `Object.defineProperty(process.versions, "node", { value: "${version}" })`)
        const { status, stderr } = spawnSync(process.execPath, ["-r", old, Service.main, "--version"])
        return { status, printed: stderr.toString() }
      }
      for (const version of ["12.22.12", "20.20.2", "22.18.9"]) {
        const { status, printed } = ask(version)
        assert.strictEqual(status, 78)
        assert.match(
          printed,
          new RegExp(
            `^event-ingestor needs Node 22\\.19 or newer, this is ${version}: .*ignore-scripts.*\n$`,
          ),
        )
      }
      for (const version of ["22.19.0", "24.1.0"])
        assert.deepStrictEqual(ask(version), { status: 0, printed: "" })

      const source = readFileSync("src/start.cjs", "utf8")
      const [newest, oldest] = yield* Effect.promise(() =>
        Promise.all(
          ["esnext", "es2018"].map((target) =>
            transform("start.js", source, { target, sourceType: "script" }),
          ),
        ),
      )
      assert.deepStrictEqual(newest!.errors, [])
      assert.strictEqual(oldest!.code, newest!.code)
      assert.notMatch(source, /require\("node:/)
    }).pipe(Effect.scoped, Effect.runPromise))

  it("runs through a link with any POSIX shell, without env -S", () =>
    Effect.gen(function* () {
      const link = join(yield* directory, "event-ingestor")
      symlinkSync(Service.main, link)
      const printed = execFileSync("sh", [link, "--version"], { env: { PATH: process.env["PATH"] } })
      assert.match(printed.toString(), /\d+\.\d+\.\d+/)
      assert.deepStrictEqual(execFileSync(link, ["--version"]), printed)
      assert.strictEqual(readFileSync(link, "utf8").split("\n", 1)[0], "#!/bin/sh")
    }).pipe(Effect.scoped, Effect.runPromise))

  it.live("rewrites everything, and logs why, when its SQLite file is deleted while it runs", () =>
    Effect.gen(function* () {
      const { chain, url } = yield* node
      const path = join(yield* directory, "events.db")
      const service = yield* Service.start({ env: Devnet.environment(url, { DATABASE_PATH: path }) })
      const port = yield* service.port
      yield* Effect.repeat(jsonFrom(port, "/ready"), {
        until: ({ status }) => status === 200,
        schedule: Schedule.spaced("50 millis"),
      })
      rmSync(path)
      chain.extend(3, 1)
      yield* service.says(/events\.db was deleted while it was open/)
      yield* Effect.scoped(
        Effect.flatMap(Devnet.openSqlite(path), (client) =>
          Devnet.reached(
            client,
            Effect.sync(() => chain.head),
          ),
        ),
      )
    }).pipe(Effect.scoped),
  )
})
