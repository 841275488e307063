/** docker-compose.yml and the files it mounts, checked without Docker: docker-compose itself only parses them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { copyFileSync, cpSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { parse } from "yaml"
import { fromVariables } from "../../src/config/AppConfig.ts"
import { directory } from "../support/directory.ts"

interface Service {
  readonly image: string
  readonly build?: { readonly context: string }
  readonly command?: ReadonlyArray<string> | string
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: ReadonlyArray<string>
  readonly volumes?: ReadonlyArray<string>
  readonly profiles?: ReadonlyArray<string>
  readonly restart: string
  readonly mem_limit?: string
  readonly read_only?: boolean
  readonly cap_drop?: ReadonlyArray<string>
  readonly security_opt?: ReadonlyArray<string>
  readonly healthcheck?: { readonly test?: ReadonlyArray<string> }
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>
}

interface Stack {
  readonly services: Readonly<Record<string, Service>>
  readonly volumes: Readonly<Record<string, unknown>>
}

const example = readFileSync(".env.example", "utf8")

/** `docker-compose config` in a copy of the files it reads, with this .env. */
const compose = (env: string, ...args: ReadonlyArray<string>) =>
  Effect.map(directory, (home) => {
    for (const file of ["docker-compose.yml", "Dockerfile", "otel-collector.yaml"]) {
      copyFileSync(file, join(home, file))
    }
    cpSync("deploy", join(home, "deploy"), { recursive: true })
    writeFileSync(join(home, ".env"), env)
    const { status, stdout, stderr } = spawnSync("docker-compose", [...args, "config"], {
      cwd: home,
      encoding: "utf8",
      env: { PATH: process.env["PATH"] },
    })
    return { home, status, stdout, stderr }
  })

const withPassword = example.replace("GRAFANA_PASSWORD=", "GRAFANA_PASSWORD=chosen")

/** The stack with all profiles. */
const fullStack = Effect.map(
  compose(withPassword, "--profile", "devnet", "--profile", "fleet"),
  ({ home, status, stdout, stderr }) => {
    assert.strictEqual(status, 0, stderr)
    return { ...(parse(stdout) as Stack), home }
  },
)

/** Every `host:port` of these services that a configuration names. */
const addresses = (text: string, services: ReadonlyArray<string>) =>
  [...text.matchAll(/\b([a-z][a-z-]+):(\d{4,5})\b/g)]
    .map(([, host, port]) => ({ host: host!, port: port! }))
    .filter(({ host }) => services.includes(host))

describe("the compose stack", () => {
  it.effect("is valid for docker-compose, and requires a Grafana password", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      assert.deepInclude(services["grafana"]!.environment!, {
        GF_SECURITY_ADMIN_PASSWORD: "chosen",
        GF_AUTH_ANONYMOUS_ENABLED: "false",
      })
      assert.strictEqual(services["ingestor"]?.environment?.["GRAFANA_PASSWORD"], "")
      const without = yield* compose(example)
      assert.notStrictEqual(without.status, 0)
      assert.include(without.stderr, "set it in .env")
      // Not supported by docker-compose 1.29, the version in Debian.
      assert.notMatch(readFileSync("docker-compose.yml", "utf8"), /^name:|start_interval|dockerfile_inline/m)
    }),
  )

  it.effect("has a durable Redis, pinned images, limits, health checks, and listens on loopback only", () =>
    Effect.gen(function* () {
      const { services, volumes, home } = yield* fullStack
      const always = Object.keys(services).filter((name) => services[name]!.profiles === undefined)
      assert.deepStrictEqual(always.toSorted(), [
        "grafana",
        "ingestor",
        "otel-collector",
        "prometheus",
        "redis",
        "tempo",
      ])
      const usedPorts = new Set<string>()
      for (const [name, service] of Object.entries(services)) {
        assert.match(service.mem_limit ?? "", /^\d+[mg]$/, name)
        assert.include(service.security_opt ?? [], "no-new-privileges:true", name)
        for (const port of service.ports ?? []) {
          assert.match(port, /^127\.0\.0\.1:\d+:\d+(\/tcp)?$/, name)
          const [, host] = port.split(":")
          assert.isFalse(usedPorts.has(host!), `${name}: ${port}`)
          usedPorts.add(host!)
        }
        for (const volume of service.volumes ?? []) {
          const [source, , mode] = volume.split(":")
          if (source!.startsWith("/")) {
            assert.isTrue(existsSync(relative(home, source!)), volume)
            assert.strictEqual(mode, "ro", volume)
          } else assert.property(volumes, source!, volume)
        }
        const dockerfile = service.build && join(relative(home, service.build.context) || ".", "Dockerfile")
        if (dockerfile === undefined) {
          assert.match(service.image, /^[\w./-]+:v?\d+\.\d+\.\d+(-[a-z]+)?$/, name)
        } else {
          for (const [, image] of readFileSync(dockerfile, "utf8").matchAll(
            /^FROM ([\w./-]+:.*?)( AS|$)/gm,
          )) {
            assert.match(image!, /:\d+\.\d+\.\d+(-[a-z]+)?$/, dockerfile)
          }
        }
        if (service.healthcheck?.test?.[0] === "NONE") {
          assert.include(["devnet-traffic", "devnet-reset"], name)
        } else if (service.healthcheck) {
          assert.strictEqual(service.healthcheck.test?.[0], "CMD", `${name}: health check without a shell`)
        } else {
          assert.match(readFileSync(dockerfile!, "utf8"), /^HEALTHCHECK /m, name)
        }
        for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
          const ends = condition === "service_completed_successfully"
          assert.strictEqual(services[other]!.restart === "no", ends, `${name} waits for ${other}`)
          assert.notStrictEqual(condition, "service_started", `${name} waits for ${other}`)
          assert.isTrue(
            ends || services[other]!.healthcheck?.test?.[0] !== "NONE",
            `${name} waits for ${other}`,
          )
        }
      }
      const redis = services["redis"]!.command!
      const line = typeof redis === "string" ? redis : redis.join(" ")
      for (const option of ["--appendonly yes", "--maxmemory-policy noeviction"]) assert.include(line, option)
      for (const [name, { image, read_only, cap_drop }] of Object.entries(services)) {
        if (image !== "event-ingestor") continue
        assert.deepStrictEqual([read_only, cap_drop], [true, ["ALL"]], name)
      }
    }),
  )

  it.effect("configures its ingestors with existing variables and valid values", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      for (const name of ["ingestor", "ingestor-2", "ingestor-3", "devnet-ingestor", "devnet-reset"]) {
        const config = yield* fromVariables(services[name]!.environment!)
        assert.deepStrictEqual(config.warnings, [], name)
        assert.strictEqual(config.store._tag, "Redis", name)
        assert.deepStrictEqual(config.retention, { maxLength: 200_000, groups: [], backlog: 800_000 }, name)
        assert.deepInclude(config.http, { host: "0.0.0.0", port: 9090 }, name)
      }
      // An .env written for a service outside the stack.
      const outside = `${withPassword}\nREDIS_HOST=10.0.0.1\nREDIS_PASSWORD=p\nHTTP_HOST=127.0.0.1\nMETRICS_PORT=9999\n`
      const { stdout } = yield* compose(outside)
      const inside = yield* fromVariables((parse(stdout) as Stack).services["ingestor"]!.environment!)
      assert.deepInclude(inside.store, { nodes: [{ host: "redis", port: 6379 }], password: undefined })
      assert.deepInclude(inside.http, { host: "0.0.0.0", port: 9090 })
    }),
  )

  it.effect("runs three replicas of one fleet, which differ only in what they are called", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      const replicas = ["ingestor", "ingestor-2", "ingestor-3"]
      const [first, ...others] = replicas.map((name) => {
        const { environment = {}, ports = [], profiles, ...rest } = services[name]!
        const { OTEL_RESOURCE_ATTRIBUTES: attributes, ...variables } = environment
        assert.strictEqual(attributes, `service.instance.id=${name}`)
        assert.lengthOf(ports, 1, name)
        assert.deepStrictEqual(profiles, name === "ingestor" ? undefined : ["fleet"])
        return { ...rest, variables }
      })
      for (const other of others) assert.deepStrictEqual(other, first)
      const { fleet } = yield* fromVariables(first!.variables)
      assert.strictEqual(fleet?.name, "main")
      const devnet = yield* fromVariables(services["devnet-ingestor"]!.environment!)
      assert.isUndefined(devnet.fleet, "it has other chains")
      const { stdout } = yield* compose(`${withPassword}\nFLEET=mine\n`)
      assert.strictEqual((parse(stdout) as Stack).services["ingestor"]!.environment!["FLEET"], "mine")
    }),
  )

  it.effect("connects its services by names and ports that exist", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      const collector = readFileSync("otel-collector.yaml", "utf8")
      const listens: Record<string, ReadonlyArray<string>> = {
        "otel-collector": [...collector.matchAll(/(?:0\.0\.0\.0:| port: )(\d+)/g)].map(([, port]) => port!),
        tempo: ["3200", "4318"],
        prometheus: ["9090"],
        redis: ["6379"],
        anvil: ["8545"],
      }
      const tempo = readFileSync("deploy/tempo/tempo.yaml", "utf8")
      for (const port of listens["tempo"]!) assert.include(tempo, port)
      const texts = [
        "otel-collector.yaml",
        "deploy/prometheus/prometheus.yaml",
        "deploy/grafana/provisioning/datasources/datasources.yaml",
        "docker-compose.yml",
      ].map((path) => readFileSync(path, "utf8").replaceAll(/^\s*#.*$/gm, ""))
      const referenced = addresses(texts.join("\n"), Object.keys(services))
      assert.isAbove(referenced.length, 8)
      for (const { host, port } of referenced) assert.include(listens[host] ?? [], port, `${host}:${port}`)
    }),
  )
})
