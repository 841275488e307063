/** docker-compose.yml and the files it mounts, checked without Docker: docker-compose itself only parses them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { copyFileSync, cpSync, existsSync, readFileSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { parseEnv } from "node:util"
import { parse } from "yaml"
import { fromVariables } from "../../src/config/AppConfig.ts"
import { directory } from "../support/directory.ts"
import { freePort } from "../support/RedisServer.ts"
import { shell } from "../support/shell.ts"

interface Service {
  readonly image: string
  readonly build?: { readonly context: string }
  readonly command?: ReadonlyArray<string> | string
  readonly entrypoint?: ReadonlyArray<string>
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
  compose(withPassword, ...["observability", "devnet", "fleet"].flatMap((name) => ["--profile", name])),
  ({ home, status, stdout, stderr }) => {
    assert.strictEqual(status, 0, stderr)
    return { ...(parse(stdout) as Stack), home }
  },
)

/** `.env.example` for the ingestor and Redis alone, without what only the other profiles need. */
const minimal = example.replaceAll(/^(COMPOSE_PROFILES|STACK_OTLP_ENDPOINT|GRAFANA_PASSWORD)=.*\n/gm, "")

const ingestors = ["ingestor", "ingestor-2", "ingestor-3", "devnet-ingestor", "devnet-reset"]

/** What each profile adds to the ingestor and Redis. */
const added: Readonly<Record<string, ReadonlyArray<string>>> = {
  observability: ["otel-collector", "prometheus", "tempo", "grafana"],
  fleet: ["ingestor-2", "ingestor-3"],
  devnet: ["anvil", "devnet-traffic", "devnet-reset", "devnet-ingestor"],
}

const textOf = (command: ReadonlyArray<string> | string) =>
  typeof command === "string" ? command : command.join(" ")

/** Runs a command in a shell until it has written something that matches. */
const startsWith = (command: string, pattern: RegExp) =>
  Effect.flatMap(shell(`exec ${command}`, {}), ({ says }) => says(pattern)).pipe(Effect.scoped)

/** Every `host:port` of these services that a configuration names. */
const addresses = (text: string, services: ReadonlyArray<string>) =>
  [...text.matchAll(/\b([a-z][a-z-]+):(\d{4,5})\b/g)]
    .map(([, host, port]) => ({ host: host!, port: port! }))
    .filter(({ host }) => services.includes(host))

describe("the compose stack", () => {
  it.effect("is valid for docker-compose, and Grafana does not start without a password", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      assert.deepInclude(services["grafana"]!.environment!, {
        GF_SECURITY_ADMIN_PASSWORD: "chosen",
        GF_AUTH_ANONYMOUS_ENABLED: "false",
      })
      assert.strictEqual(services["ingestor"]?.environment?.["GRAFANA_PASSWORD"], "")
      const [sh, ...args] = services["grafana"]!.entrypoint!.map((part) => part.replaceAll("$$", "$"))
      const script = args.map((part) => part.replace("/run.sh", "echo started"))
      const grafana = (GF_SECURITY_ADMIN_PASSWORD: string) =>
        spawnSync(sh!, script, { encoding: "utf8", env: { GF_SECURITY_ADMIN_PASSWORD } })
      assert.strictEqual(grafana("chosen").stdout, "started\n")
      const without = grafana("")
      assert.notStrictEqual(without.status, 0)
      assert.strictEqual(without.stdout, "")
      assert.include(without.stderr, "set GRAFANA_PASSWORD in .env")
      // Not supported by docker-compose 1.29, the version in Debian.
      assert.notMatch(readFileSync("docker-compose.yml", "utf8"), /^name:|start_interval|dockerfile_inline/m)
    }),
  )

  it.effect("has a durable Redis, pinned images, limits, health checks, and listens on loopback only", () =>
    Effect.gen(function* () {
      const { services, volumes, home } = yield* fullStack
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
      const line = textOf(redis)
      for (const option of ["--appendonly yes", "--maxmemory-policy noeviction"]) assert.include(line, option)
      for (const [name, { image, read_only, cap_drop }] of Object.entries(services)) {
        if (image !== "event-ingestor") continue
        assert.deepStrictEqual([read_only, cap_drop], [true, ["ALL"]], name)
      }
    }),
  )

  it.effect(
    "starts for each combination of profiles the services that need each other, and nothing else",
    () =>
      Effect.gen(function* () {
        assert.strictEqual(parseEnv(example)["COMPOSE_PROFILES"], "observability")
        const profiles = Object.keys(added)
        for (let mask = 0; mask < 2 ** profiles.length; mask++) {
          const chosen = profiles.filter((_, bit) => mask & (1 << bit))
          const { status, stdout, stderr } = yield* compose(
            `${minimal}\nCOMPOSE_PROFILES=${chosen.join(",")}\n`,
          )
          assert.strictEqual(status, 0, stderr)
          const { services } = parse(stdout) as Stack
          // docker-compose 1.29 prints the services of all profiles.
          const started = Object.keys(services).filter((name) => {
            const { profiles } = services[name]!
            return profiles === undefined || profiles.some((profile) => chosen.includes(profile))
          })
          const expected = ["ingestor", "redis", ...chosen.flatMap((profile) => added[profile]!)]
          assert.deepStrictEqual(started.toSorted(), expected.toSorted())
          for (const name of started) {
            assert.includeMembers(started, Object.keys(services[name]!.depends_on ?? {}), name)
          }
        }
      }),
  )

  it.effect("exports telemetry to its Collector, and none without the two variables of observability", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      for (const name of ingestors) {
        const environment = services[name]!.environment!
        assert.isDefined((yield* fromVariables(environment)).telemetry, name)
        assert.strictEqual(environment["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://otel-collector:4318", name)
      }
      const outside = `${minimal}\nOTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.0.1:4318\n`
      for (const env of [minimal, outside]) {
        const { stdout } = yield* compose(env)
        for (const name of ingestors) {
          const environment = (parse(stdout) as Stack).services[name]!.environment!
          assert.notMatch(JSON.stringify(environment), /"OTEL_EXPORTER_OTLP_\w*ENDPOINT":"[^"]/, name)
          const config = yield* fromVariables(environment)
          assert.isUndefined(config.telemetry, name)
          assert.deepStrictEqual(config.warnings, [], name)
        }
      }
    }),
  )

  it.live("has commands that the real programs accept", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      const place = yield* directory
      const ports = yield* Effect.all([freePort, freePort, freePort])
      const prometheus = textOf(services["prometheus"]!.command!)
        .replaceAll("=/etc/prometheus/", "=deploy/prometheus/")
        .replaceAll("=/prometheus", `=${join(place, "prometheus")}`)
      yield* Effect.all(
        [
          startsWith(
            `${textOf(services["redis"]!.command!)} --port ${ports[0]} --dir ${place}`,
            /Ready to accept connections/,
          ),
          startsWith(
            `prometheus ${prometheus} --web.listen-address=127.0.0.1:${ports[1]}`,
            /Server is ready to receive web requests/,
          ),
          startsWith(
            `${textOf(services["anvil"]!.entrypoint!)} --port ${ports[2]}`.replace("0.0.0.0", "127.0.0.1"),
            /Listening on 127\.0\.0\.1/,
          ),
        ],
        { concurrency: 3 },
      )
    }).pipe(Effect.scoped),
  )

  it.effect("configures its ingestors with existing variables and valid values", () =>
    Effect.gen(function* () {
      const { services } = yield* fullStack
      for (const name of ingestors) {
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
