/** .env.example: every variable there is, taken by the configuration as it is shown. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { parseEnv } from "node:util"
import { entryBytes } from "../../src/cli/sizes.ts"
import { fromVariables, sections } from "../../src/config/AppConfig.ts"

const certificateFiles: Readonly<Record<string, string>> = {
  REDIS_CA_FILE: "test/fixtures/tls/ca.crt",
  REDIS_CERT_FILE: "test/fixtures/tls/server.crt",
  REDIS_KEY_FILE: "test/fixtures/tls/server.key",
}

const example = readFileSync(".env.example", "utf8")

describe(".env.example", () => {
  /** What it shows, whether commented or not. */
  const shown = Object.fromEntries(
    [...example.matchAll(/^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$/gm)].map(([, name, value]) => [name!, value!]),
  )

  it("shows every variable that src/config defines, as the table of the README does", () => {
    const { status, stderr } = spawnSync(process.execPath, ["scripts/config.mjs", "--check"])
    assert.strictEqual(status, 0, String(stderr))
    const defined = sections.flatMap(({ variables }) => variables.map(({ name }) => name))
    assert.isAbove(defined.length, 50)
    assert.strictEqual(new Set(defined).size, defined.length)
    for (const name of defined) {
      const isShown = Object.keys(shown).some((one) => one === name || one.endsWith(`_${name}`))
      assert.isTrue(isShown, name)
    }
  })

  it.effect("is taken as it is, and line by line", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(Object.keys(parseEnv(example)), ["GRAFANA_PASSWORD"])
      const asIs = yield* fromVariables(parseEnv(example))
      assert.deepStrictEqual(asIs.warnings, [])
      for (const [name, value] of Object.entries(shown)) {
        const around = {
          ...(/^(DEVNET|ETHEREUM)_/.test(name) && {
            CHAINS: "ethereum,devnet",
            DEVNET_CHAIN_ID: shown["DEVNET_CHAIN_ID"],
            DEVNET_WS_URL: shown["DEVNET_WS_URL"],
          }),
          ...(/^(REDIS_(?!URL|HOST)|STREAM_GROUPS$)/.test(name) && { REDIS_HOST: shown["REDIS_HOST"] }),
          ...(name.startsWith("REDIS_SENTINEL_") && {
            REDIS_SENTINEL_MASTER: shown["REDIS_SENTINEL_MASTER"],
            REDIS_SENTINEL_PASSWORD: "secret",
          }),
        }
        // Certificates are read: those of the tests are elsewhere, and wanted with TLS only.
        const certificates = certificateFiles[name] && {
          ...certificateFiles,
          REDIS_URL: "rediss://127.0.0.1",
          REDIS_HOST: undefined,
        }
        const config = yield* fromVariables({ ...around, [name]: value, ...certificates })
        assert.deepStrictEqual(config.warnings, [], name)
      }
    }),
  )

  it.effect("shows the defaults", () =>
    Effect.gen(function* () {
      const decoded = (variables: Record<string, string | undefined>) =>
        Effect.map(fromVariables(variables), (config) => ({ ...config, redact: undefined }))
      const unset = yield* decoded({})
      for (const name of [
        "CHAINS",
        "START_BLOCK",
        "CONFIRMATIONS",
        "LOGS_BLOOM",
        "REDIS_CLUSTER",
        "DATABASE_PATH",
        "STREAM_PREFIX",
        "STREAM_MAXLEN",
        "STREAM_BACKLOG",
        "STALL_TIMEOUT",
        "REQUEST_TIMEOUT",
        "SHUTDOWN_TIMEOUT",
        "WS_MAX_PAYLOAD",
        "HTTP_HOST",
        "HTTP_PORT",
        "METRICS_PORT",
        "LOG_LEVEL",
        "OTEL_SDK_DISABLED",
      ]) {
        assert.deepStrictEqual(yield* decoded({ [name]: shown[name] }), unset, name)
      }
      const to = { OTEL_EXPORTER_OTLP_ENDPOINT: shown["OTEL_EXPORTER_OTLP_ENDPOINT"] }
      const telemetry = (yield* decoded(to)).telemetry
      assert.isDefined(telemetry)
      for (const name of Object.keys(shown).filter((name) => name.startsWith("OTEL_"))) {
        if (/HEADERS|ATTRIBUTES|LOGS_(ENDPOINT|TIMEOUT)/.test(name)) continue
        assert.deepStrictEqual((yield* decoded({ ...to, [name]: shown[name] })).telemetry, telemetry, name)
      }
    }),
  )
})

describe("docker-compose.yml", () => {
  it("keeps no more of five chains than fits into its Redis, with room for what is not final", () => {
    const stack = readFileSync("docker-compose.yml", "utf8")
    const maxLength = Number(/STREAM_MAXLEN: \$\{STREAM_MAXLEN:-(\d+)\}/.exec(stack)![1])
    const maxMemory = Number(/--maxmemory (\d+)gb/.exec(stack)![1]) * 1024 ** 3
    // Not final of the busiest of the default chains: 1 300 logs a second for 15 minutes, most of them transfers.
    const window = (1300 * 900 - maxLength) * entryBytes.least
    assert.isAtMost(5 * maxLength * entryBytes.most + window, maxMemory * 0.8)
    assert.include(example, `\`docker-compose.yml\` sets \`${maxLength}\``)
  })
})
