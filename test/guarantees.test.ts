import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"

describe("docs/GUARANTEES.md", () => {
  it("names only tests that exist", () => {
    const text = readFileSync("docs/GUARANTEES.md", "utf8")
    const matrix = text.slice(text.indexOf("## The fault matrix"))
    const named = [...matrix.matchAll(/`([\w/]+): ([^`]+)` \|$/gm)]
    assert.isAbove(named.length, 30)
    for (const [, file, title] of named) {
      const path = [`test/${file}.test.ts`, `test/${file}.ts`].find((one) => existsSync(one))
      assert.isDefined(path, file)
      assert.include(readFileSync(path!, "utf8"), title!, `${file}: ${title}`)
    }
  })

  it("says of every fault what happens, and where that is shown", () => {
    const text = readFileSync("docs/GUARANTEES.md", "utf8")
    const rows = text
      .slice(text.indexOf("| fault |"))
      .split("\n")
      .filter((line) => line.startsWith("| "))
    for (const row of rows.filter((line) => !line.startsWith("| **"))) {
      assert.isTrue(
        row.split(" | ").every((cell) => cell.trim() !== ""),
        row,
      )
    }
  })
})
