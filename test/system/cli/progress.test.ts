/** Progress bars of real processes, on terminals and elsewhere. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Scope } from "effect"
import { join } from "node:path"
import { emptyHead } from "../../../src/store/Journal.ts"
import { pushes } from "../../../src/store/Pushes.ts"
import * as Devnet from "../../support/devnet.ts"
import { directory } from "../../support/directory.ts"
import { FakeChain } from "../../support/FakeChain.ts"
import { FakeNode, silence } from "../../support/FakeNode.ts"
import * as Service from "../../support/Service.ts"
import { onTerminal, plain } from "../../support/terminal.ts"

const test = (title: string, body: Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body), 30_000)

/** What is written to remove a bar. */
const erasure = "\u001b[1A\u001b[J"

const size = { columns: 120, rows: 20 }

/** A chain of a thousand blocks whose node is silent about the upper half of them until it is released. */
const stalling = Effect.gen(function* () {
  const node = new FakeNode(new FakeChain())
  node.chain.extend(...Array.from({ length: 1000 }, (_, i) => i % 2))
  let isStalling = true
  const isUpper = (block: unknown) => Number(block) > 500 && Number(block) < 1000
  node.intercept = (_method, [first], proceed) => {
    const { fromBlock, toBlock } = (first ?? {}) as Record<string, unknown>
    return isStalling && [first, fromBlock, toBlock].some(isUpper) ? silence : proceed()
  }
  const path = join(yield* directory, "events.db")
  const env = Devnet.environment(yield* node.serve, {
    DATABASE_PATH: path,
    HTTP_PORT: "0",
    LOG_FORMAT: "logfmt",
  })
  const release = Effect.sync(() => {
    isStalling = false
    node.drop()
  })
  return { node, path, env, release }
})

describe("the progress of a backfill", () => {
  test(
    "is a bar below the log on a terminal, which is gone at the end, and nothing in a pipe",
    Effect.gen(function* () {
      const { env, release } = yield* stalling
      const piped = yield* Service.start({
        env: { ...env, DATABASE_PATH: join(yield* directory, "events.db") },
      })
      yield* piped.says(/event=begin /)
      const service = yield* onTerminal([], env, size)
      yield* service.says(/\ndevnet {2}█*░+ +\d+ % {2}\d+ of \d+ blocks/)
      // The other one has been behind for longer.
      assert.notMatch(piped.output() + piped.errors(), /█|░/)
      yield* release
      yield* service.says(/event=live /)
      yield* service.types("\u0003")
      assert.strictEqual(yield* service.exit, 0)
      const output = service.output().replaceAll("\r", "")
      // Nothing is printed into a bar.
      for (const line of plain(output).split("\n"))
        assert.match(line, /^(\^C)?(timestamp=.*|devnet {2}[█░]{20} .*|)$/)
      const after = output.split(erasure).at(-1)!
      assert.notInclude(after, "█")
      assert.include(after, "event=stopped")
    }),
  )
})

describe("the progress of verify", () => {
  test(
    "is a bar on a terminal, in whose place the result is printed, and nothing in a pipe",
    Effect.gen(function* () {
      const { node, path, env, release } = yield* stalling
      const store = yield* Devnet.openSqlite(path)
      for (const move of pushes(emptyHead(0), node.chain.blocks(), false))
        yield* store.push(31337, "none", move)
      const verify = yield* onTerminal(["verify"], env, size)
      yield* verify.says(/devnet: comparing with the chain {2}█*░+ +\d+ % {2}\d+ of 1 001 blocks/)
      yield* release
      assert.strictEqual(yield* verify.exit, 0)
      const output = verify.output().replaceAll("\r", "")
      assert.match(output.split(erasure).at(-1)!, /^devnet: blocks 0 … 1000, .*complete/)
      const { code, errors, output: piped } = yield* Service.run({ args: ["verify"], env })
      assert.strictEqual(code, 0)
      assert.strictEqual(errors, "")
      assert.match(piped, /^devnet: blocks 0 … 1000, .* complete\n$/)
    }),
  )
})
