/** .env.example lists every variable, and the configuration accepts it as shown. */
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
  /** Its variables and values, whether commented or not. */
  const shown = Object.fromEntries(
    [...example.matchAll(/^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$/gm)].map(([, name, value]) => [name!, value!]),
  )

  it("lists every variable that src/config defines, and so does docs/CONFIGURATION.md", () => {
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

  it.effect("is accepted unchanged, and line by line, without a warning", () =>
    Effect.gen(function* () {
      const forStack = ["COMPOSE_PROFILES", "STACK_OTLP_ENDPOINT", "GRAFANA_PASSWORD"]
      assert.sameMembers(Object.keys(parseEnv(example)), forStack)
      const asIs = yield* fromVariables(parseEnv(example))
      assert.deepStrictEqual(asIs.warnings, [])
      for (const [name, value] of Object.entries(shown)) {
        const required = {
          ...(/^(DEVNET|ETHEREUM)_/.test(name) && {
            CHAINS: "ethereum,devnet",
            DEVNET_CHAIN_ID: shown["DEVNET_CHAIN_ID"],
            DEVNET_WS_URL: shown["DEVNET_WS_URL"],
          }),
          ...(/^(REDIS_(?!URL|HOST)|STREAM_GROUPS$|FLEET$)/.test(name) && {
            REDIS_HOST: shown["REDIS_HOST"],
          }),
          ...(name.startsWith("REDIS_SENTINEL_") && {
            REDIS_SENTINEL_MASTER: shown["REDIS_SENTINEL_MASTER"],
            REDIS_SENTINEL_PASSWORD: "secret",
          }),
        }
        // Certificates are read from disk: the tests have their own, and they require TLS.
        const certificates = certificateFiles[name] && {
          ...certificateFiles,
          REDIS_URL: "rediss://127.0.0.1",
          REDIS_HOST: undefined,
        }
        const config = yield* fromVariables({ ...required, [name]: value, ...certificates })
        assert.deepStrictEqual(config.warnings, [], name)
      }
    }),
  )

  it.effect("shows the default of every variable that has one", () =>
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
  it("keeps five chains within the memory of its Redis, with room for entries that are not final", () => {
    const stack = readFileSync("docker-compose.yml", "utf8")
    const maxLength = Number(/STREAM_MAXLEN: \$\{STREAM_MAXLEN:-(\d+)\}/.exec(stack)![1])
    const maxMemory = Number(/--maxmemory (\d+)gb/.exec(stack)![1]) * 1024 ** 3
    // Entries above the finalized block of the busiest default chain: 1 300 logs a second for 15 minutes, mostly transfers.
    const window = (1300 * 900 - maxLength) * entryBytes.least
    assert.isAtMost(5 * maxLength * entryBytes.most + window, maxMemory * 0.8)
    assert.include(example, `\`docker-compose.yml\` sets \`${maxLength}\``)
  })
})
