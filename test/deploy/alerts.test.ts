/** The alert rules: valid, about metrics that exist, firing when they should, each with a section of the runbook. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { parse } from "yaml"
import { metricsOf } from "../support/Prometheus.ts"
import { defined } from "../support/series.ts"
import { privateWords } from "../support/words.ts"

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly labels: { readonly severity: string }
  readonly annotations: {
    readonly summary: string
    readonly description: string
    readonly runbook_url: string
  }
}

interface Cases {
  readonly tests: ReadonlyArray<{
    readonly alert_rule_test: ReadonlyArray<{
      readonly alertname: string
      readonly exp_alerts?: ReadonlyArray<unknown>
    }>
  }>
}

const file = "deploy/prometheus/alerts.yaml"
const cases = "test/deploy/alerts.promtool.yaml"

const { groups } = parse(readFileSync(file, "utf8")) as {
  readonly groups: ReadonlyArray<{ readonly rules: ReadonlyArray<Rule> }>
}
const rules = groups.flatMap(({ rules }) => rules)

const promtool = (...args: ReadonlyArray<string>) => execFileSync("promtool", args, { encoding: "utf8" })

describe("the alerts", () => {
  it("are what promtool takes for rules, with the configuration that loads them", () => {
    const rulesSeen = promtool("check", "config", "deploy/prometheus/prometheus.yaml")
    assert.include(rulesSeen, `SUCCESS: ${rules.length} rules found`)
    assert.isAbove(rules.length, 10)
  })

  it("fire when they should and not in conditions that only resemble their cause", () => {
    assert.include(promtool("test", "rules", cases), "SUCCESS")
    const { tests } = parse(readFileSync(cases, "utf8")) as Cases
    const all = tests.flatMap(({ alert_rule_test }) => alert_rule_test)
    for (const { alert } of rules) {
      const own = all.filter(({ alertname }) => alertname === alert)
      assert.isTrue(
        own.some(({ exp_alerts }) => exp_alerts !== undefined),
        `${alert} is tested to fire`,
      )
      assert.isTrue(
        own.some(({ exp_alerts }) => exp_alerts === undefined),
        `${alert} is tested not to fire`,
      )
    }
  })

  it("read no metric that does not exist", () => {
    for (const { alert, expr } of rules) {
      const names = metricsOf(expr)
      assert.isAbove(names.length, 0, alert)
      for (const name of names) assert.isTrue(defined.has(name), `${alert}: ${name}`)
    }
  })

  it("each lead to a section of the runbook that has the impact, how to diagnose it, and how to fix it", () => {
    const sections = new Map<string, string>()
    for (const runbook of new Set(rules.map(({ annotations }) => annotations.runbook_url.split("#")[0]!))) {
      assert.isTrue(existsSync(runbook), runbook)
      for (const section of readFileSync(runbook, "utf8").split(/^## /m).slice(1)) {
        const title = section.slice(0, section.indexOf("\n"))
        const anchor = title
          .toLowerCase()
          .replaceAll(/[^\w\- ]/g, "")
          .replaceAll(" ", "-")
        sections.set(`${runbook}#${anchor}`, section)
      }
    }
    for (const { alert, annotations, labels } of rules) {
      assert.match(labels.severity, /^(critical|warning)$/, alert)
      assert.isAbove(annotations.summary.length, 10, alert)
      assert.isAbove(annotations.description.length, 10, alert)
      const section = sections.get(annotations.runbook_url)
      assert.isDefined(section, annotations.runbook_url)
      const parts = [...section!.matchAll(/^\*\*(.*?)\*\*/gm)].map(([, part]) => part)
      assert.deepStrictEqual(parts, ["Impact.", "Diagnose.", "Fix."], alert)
    }
    const used = new Set(rules.map(({ annotations }) => annotations.runbook_url))
    assert.deepStrictEqual([...sections.keys()].toSorted(), [...used].toSorted())
    const all = readFileSync("docs/RUNBOOK.md", "utf8")
    for (const [, anchor] of all.matchAll(/\]\(#([^)]*)\)/g)) {
      assert.isTrue(sections.has(`docs/RUNBOOK.md#${anchor}`), anchor)
    }
  })

  it("are written, as their runbook is, in the words of the field", () => {
    for (const text of [file, cases, "docs/RUNBOOK.md"]) {
      const found = [...readFileSync(text, "utf8").matchAll(privateWords)].map(([word]) => word)
      assert.deepStrictEqual(found, [], text)
    }
  })
})
