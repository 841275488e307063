import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { definitions } from "../../../src/observability/Metrics.ts"
import { namesOf } from "../../../src/observability/MetricFamily.ts"

describe("metrics", () => {
  it("match docs/METRICS.md", () => {
    const { status, stderr } = spawnSync(process.execPath, ["scripts/metrics.mjs", "--check"])
    assert.strictEqual(status, 0, stderr.toString())
  })

  it("have unique names that follow the conventions of Prometheus", () => {
    const names = definitions.flatMap(namesOf)
    assert.strictEqual(new Set(names).size, names.length)
    for (const { help, name, type } of definitions) {
      assert.match(name, /^[a-z][a-z_0-9]*$/)
      assert.strictEqual(name.endsWith("_total"), type === "counter", name)
      assert.isAbove(help.length, 10)
    }
  })

  it("share one namespace; the original seven keep their bare names, and process metrics those of prom-client", () => {
    const bare = definitions.flatMap(({ bareName }) => bareName ?? [])
    assert.deepStrictEqual(bare, [
      "events_received_total",
      "events_published_total",
      "events_deduplicated_total",
      "websocket_reconnects_total",
      "circuit_breaker_state",
      "event_processing_errors_total",
      "consecutive_failures",
    ])
    for (const { bareName, name } of definitions) {
      if (bareName !== undefined) assert.strictEqual(name, `event_ingestor_${bareName}`)
    }
    const outside = definitions.filter(({ name }) => !name.startsWith("event_ingestor_"))
    assert.deepStrictEqual(
      outside.map(({ name }) => name),
      [
        "process_start_time_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "nodejs_heap_size_used_bytes",
        "nodejs_eventloop_lag_p50_seconds",
        "nodejs_eventloop_lag_p99_seconds",
      ],
    )
  })
})
