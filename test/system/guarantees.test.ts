import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync, readdirSync } from "node:fs"

const text = readFileSync("docs/GUARANTEES.md", "utf8")

/** The cells of each row of the table with these column titles. */
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

const isHeading = ([, first]: ReadonlyArray<string>) => /^\*\*The .*\*\*$/.test(first!)

const matrix = table("| id | fault | what happens | test |").filter((row) => !isHeading(row))
const bounds = table("| what | limit | at the limit | where |")

/** The ids that titles end with: `reconnects [G-001 G-002]`. */
const idsIn = (source: string): ReadonlyArray<string> =>
  [...source.matchAll(/ \[(G-\d{3}(?: G-\d{3})*)\](?=["`])/g)].flatMap(([, ids]) => ids!.split(" "))

const sources = ["test", "chaos"].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => `${folder}/${path}`),
)

describe("docs/GUARANTEES.md", () => {
  it("names for each fault a test file with the fault's id in a title", () => {
    assert.isAbove(matrix.length, 50)
    for (const [id, fault, , where] of matrix) {
      const [, file] = /^`([\w/]+)`$/.exec(where!) ?? []
      assert.isDefined(file, `no test: ${id} ${fault}`)
      const path = [`test/${file}.test.ts`, `test/${file}.ts`, `${file}.ts`].find((one) => existsSync(one))
      assert.isDefined(path, file)
      assert.include(idsIn(readFileSync(path!, "utf8")), id!, `${path}: ${fault}`)
    }
  })

  it("gives each fault a unique id, and lists every id that a title has", () => {
    const ids = matrix.map(([id]) => id!)
    assert.strictEqual(new Set(ids).size, ids.length)
    for (const id of ids) assert.match(id, /^G-\d{3}$/)
    const carried = sources.flatMap((path) => idsIn(readFileSync(path, "utf8")))
    assert.deepStrictEqual(
      [...new Set(carried)].filter((id) => !ids.includes(id)),
      [],
    )
  })

  it("describes what happens for every fault", () => {
    for (const [, fault, what] of matrix) {
      assert.isTrue(fault !== "" && (what !== "" || fault === "**Everything at once**"), fault)
    }
  })

  it("describes what happens at every limit, and names its file", () => {
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
