/** The recording rules that keep the metric names of version 0.1 for one more version, and the table that documents them. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { parse } from "yaml"
import { definitions } from "../../src/observability/Metrics.ts"
import { metricsOf } from "../support/Prometheus.ts"
import { defined } from "../support/series.ts"

interface Rule {
  readonly record: string
  readonly expr: string
  readonly labels?: Readonly<Record<string, string>>
}

const { groups } = parse(readFileSync("deploy/prometheus/old-names.yaml", "utf8")) as {
  readonly groups: ReadonlyArray<{ readonly rules: ReadonlyArray<Rule> }>
}
const rules = groups.flatMap(({ rules }) => rules)

/** The rows of the metrics table: the old name with its labels, the new one, and the source of the old one. */
const table = [
  ...readFileSync("CHANGELOG.md", "utf8").matchAll(
    /^\| `([a-z_]+)(?:\{([^`]*)\})?` \| `([a-z_0-9]+)` \| (.+) \|$/gm,
  ),
].map(([, old, label, name, from]) => ({ old: old!, label, name: name!, from: from! }))

const suffixes = (name: string) =>
  definitions.some((one) => one.name === name && one.type === "histogram")
    ? ["_bucket", "_sum", "_count"]
    : [""]

describe("the old metric names", () => {
  it("come from the service or from recording rules, as the changelog's table states", () => {
    assert.strictEqual(table.length, 42)
    for (const { from, name, old } of table) {
      const isExported = definitions.some((one) => one.name === name && (one.bareName ?? name) === old)
      assert.strictEqual(isExported, from !== "recording rules", old)
    }
    const expected = table
      .filter(({ from }) => from === "recording rules")
      .flatMap(({ label = "", name, old }) =>
        suffixes(name).map((suffix) => [old + suffix, label.replaceAll('"', ""), name + suffix]),
      )
    const recorded = rules.map(({ expr, labels = {}, record }) => [
      record,
      Object.entries(labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(),
      metricsOf(expr)[0],
    ])
    assert.deepStrictEqual(recorded.toSorted(), expected.toSorted())
  })

  it("never shadow an existing metric, and are computed only from existing ones", () => {
    for (const { expr, record } of rules) {
      assert.isFalse(defined.has(record), record)
      for (const name of metricsOf(expr)) assert.isTrue(defined.has(name), `${record}: ${name}`)
    }
  })

  it("have the values of the new ones in Prometheus", () => {
    const run = (...args: ReadonlyArray<string>) => execFileSync("promtool", args, { encoding: "utf8" })
    assert.include(run("test", "rules", "test/deploy/oldNames.promtool.yaml"), "SUCCESS")
    assert.include(run("check", "config", "deploy/prometheus/prometheus.yaml"), `${rules.length} rules found`)
  })
})
