/** The Collector's configuration. That the Collector itself accepts it was tested by hand, with the version it names. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { parse } from "yaml"

interface Collector {
  readonly receivers: Readonly<Record<string, unknown>>
  readonly processors: Readonly<Record<string, unknown>> & {
    readonly redaction: {
      readonly blocked_values: ReadonlyArray<string>
      readonly blocked_key_patterns: ReadonlyArray<string>
    }
  }
  readonly exporters: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  readonly extensions: Readonly<Record<string, unknown>>
  readonly service: {
    readonly extensions: ReadonlyArray<string>
    readonly pipelines: Readonly<Record<string, Readonly<Record<string, ReadonlyArray<string>>>>>
    readonly telemetry: unknown
  }
}

interface Scraping {
  readonly scrape_configs: ReadonlyArray<{
    readonly static_configs: ReadonlyArray<{ readonly targets: ReadonlyArray<string> }>
  }>
}

const { service, ...parts } = parse(readFileSync("otel-collector.yaml", "utf8")) as Collector

describe("the Collector", () => {
  it("uses every component it declares, the memory limiter first, and no deprecated one", () => {
    const used = new Set([
      ...service.extensions,
      ...Object.values(service.pipelines).flatMap((pipeline) => Object.values(pipeline).flat()),
    ])
    const declared = Object.values(parts).flatMap((part) => Object.keys(part))
    assert.deepStrictEqual([...used].toSorted(), declared.toSorted())
    for (const [name, { processors }] of Object.entries(service.pipelines)) {
      assert.deepStrictEqual(processors!.slice(0, 2), ["memory_limiter", "redaction"], name)
    }
    const deprecated = ["batch", "logging", "otlphttp", "otlp/tempo", "memory_ballast"]
    for (const name of deprecated) assert.notInclude(declared, name)
  })

  it("exports metrics to Prometheus by a single path, with unchanged names", () => {
    const { exporters } = parts
    assert.deepStrictEqual(service.pipelines["metrics"]?.["exporters"], ["prometheus"])
    assert.deepInclude(exporters["prometheus"]!, {
      translation_strategy: "UnderscoreEscapingWithoutSuffixes",
      without_scope_info: true,
    })
    const prometheus = parse(readFileSync("deploy/prometheus/prometheus.yaml", "utf8")) as Scraping
    const targets = prometheus.scrape_configs.flatMap((job) =>
      job.static_configs.flatMap(({ targets }) => targets),
    )
    const port = String(exporters["prometheus"]!["endpoint"]).split(":")[1]
    assert.strictEqual(targets.filter((target) => target === `otel-collector:${port}`).length, 1)
    assert.isFalse(targets.some((target) => target.includes("ingestor")))
    for (const setting of ["sending_queue", "retry_on_failure"]) {
      assert.property(exporters["otlp_http/tempo"]!, setting)
    }
  })

  it("masks URLs and secrets in the messages of providers and libraries", () => {
    const { redaction } = parts.processors
    const patterns = (given: ReadonlyArray<string>) =>
      given.map((text) => new RegExp(text.replace(/^\(\?i\)/, ""), "gi"))
    const masked = (text: string) =>
      patterns(redaction.blocked_values).reduce((text, pattern) => text.replaceAll(pattern, "****"), text)
    for (const text of [
      "cannot connect to wss://user:pw@eth.example.com/v3/KEY?apikey=KEY: refused",
      "POST https://example.com/KEY",
      "redis://:KEY@10.0.0.1:6379/0",
      "Authorization: Bearer KEYKEYKEY",
    ]) {
      assert.notInclude(masked(text), "KEY")
    }
    const plain = "eth_getLogs at example.com: block 0x5fbdb2315678afecb367f032d93f642f64180aa3 is not there"
    assert.strictEqual(masked(plain), plain)
    const keys = patterns(redaction.blocked_key_patterns)
    for (const name of ["authorization", "db.password", "x-api-key", "METRICS_TOKEN"]) {
      assert.isTrue(
        keys.some((pattern) => name.search(pattern) === 0),
        name,
      )
    }
    for (const name of ["chain", "endpoint", "error_type", "rpc.method", "server.address"]) {
      assert.isFalse(
        keys.some((pattern) => name.search(pattern) >= 0),
        name,
      )
    }
  })
})
