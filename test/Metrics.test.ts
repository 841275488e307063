import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { definitions } from "../src/Metrics.ts"

describe("metrics", () => {
  it("are described in docs/METRICS.md as they are", () => {
    const { status, stderr } = spawnSync(process.execPath, ["scripts/metrics.mjs", "--check"])
    assert.strictEqual(status, 0, stderr.toString())
  })

  it("have names of their own, in the words of Prometheus", () => {
    const names = definitions.map(({ name }) => name)
    assert.strictEqual(new Set(names).size, names.length)
    for (const { help, name, type } of definitions) {
      assert.match(name, /^[a-z][a-z_]*$/)
      assert.strictEqual(name.endsWith("_total"), type === "counter", name)
      assert.isAbove(help.length, 10)
    }
  })
})
