import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"

const text = readFileSync("docs/GUARANTEES.md", "utf8")

/** The cells of each row of the table that begins with this row. */
const table = (titles: string): ReadonlyArray<ReadonlyArray<string>> => {
  const from = text.indexOf(`${titles}\n`)
  assert.notStrictEqual(from, -1, titles)
  const rows = text.slice(from, text.indexOf("\n\n", from)).trimEnd().split("\n")
  const columns = titles.split("|").length
  for (const row of rows) assert.strictEqual(row.split("|").length, columns, row)
  return rows.slice(2).map((row) =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  )
}

const isHeading = ([first]: ReadonlyArray<string>) => /^\*\*The .*\*\*$/.test(first!)

const matrix = table("| fault | what happens | test |").filter((row) => !isHeading(row))
const bounds = table("| what | limit | at the limit | where |")

const escaped = (words: string) => words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")

/** Whether a source has a test of exactly this title, or a fault of exactly this name; `…` is what a template puts there. */
const hasTitle = (source: string, title: string) => {
  const exactly = escaped(title).replaceAll("…", "\\$\\{[^}]+\\}")
  const quoted = `(?:"${exactly}"|\`${exactly}\`)`
  return new RegExp(`\\w\\(\\s*${quoted},|\\bname: ${quoted},|^ *${quoted}: \\(`, "m").test(source)
}

describe("docs/GUARANTEES.md", () => {
  it("names only tests that exist", () => {
    assert.isAbove(matrix.length, 50)
    for (const row of matrix) {
      const [, file, title] = /^`([\w/]+): ([^`]+)`$/.exec(row[2]!) ?? []
      assert.isDefined(file, `no test: ${row.join(" | ")}`)
      const path = [`test/${file}.test.ts`, `test/${file}.ts`, `${file}.ts`].find((one) => existsSync(one))
      assert.isDefined(path, file)
      assert.isTrue(hasTitle(readFileSync(path!, "utf8"), title!), `${file}: ${title}`)
    }
  })

  it("knows the whole title of a test from a part of it", () => {
    const source = `it("is left, and found again", () => {})\nconst faults = [{ name: "gone", of: 1 }]\n  "slow drip": () => 1`
    for (const title of ["is left, and found again", "gone", "slow drip"]) {
      assert.isTrue(hasTitle(source, title), title)
      assert.isFalse(hasTitle(source, title.slice(1)), title)
      assert.isFalse(hasTitle(source, title.slice(0, -1)), title)
    }
  })

  it("says of every fault what happens", () => {
    for (const [fault, what] of matrix) {
      assert.isTrue(fault !== "" && (what !== "" || fault === "**Everything at once**"), fault)
    }
  })

  it("says of every limit what happens there, and in which file it is", () => {
    assert.isAbove(bounds.length, 40)
    for (const row of bounds) {
      assert.isTrue(
        row.every((cell) => cell !== ""),
        row.join(" | "),
      )
      assert.match(row[3]!, /^`[\w/]+`(, `[\w/]+`)*$/, row[0])
      for (const [, file] of row[3]!.matchAll(/`([\w/]+)`/g)) {
        assert.isTrue(
          [`src/${file}.ts`, `src/${file}.lua`].some((path) => existsSync(path)),
          file,
        )
      }
    }
  })
})
