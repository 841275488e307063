/**
 * The manifests for Kubernetes without a cluster: validated by the schemas, and their containers run as processes with the manifest's own
 * environment, files and probes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schedule } from "effect"
import type {
  IPodMonitor,
  IPrometheusRule,
} from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"
import type { IDeployment, IStatefulSet } from "kubernetes-models/apps/v1"
import type { INetworkPolicy } from "kubernetes-models/networking.k8s.io/v1"
import type { IPodDisruptionBudget } from "kubernetes-models/policy/v1"
import type { IConfigMap, IContainer, INamespace, IPodSpec, IProbe } from "kubernetes-models/v1"
import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parse, parseAllDocuments } from "yaml"
import { entryBytes } from "../../src/cli/sizes.ts"
import { fromVariables } from "../../src/config/AppConfig.ts"
import { definitions } from "../../src/observability/Metrics.ts"
import * as Devnet from "../support/devnet.ts"
import { directory } from "../support/directory.ts"
import { fetchFrom } from "../support/http.ts"
import { problemsOf } from "../support/kubernetesSchema.ts"
import { render } from "../support/kustomize.ts"
import type { Manifest } from "../support/kustomize.ts"
import * as RedisServer from "../support/RedisServer.ts"
import * as Service from "../support/Service.ts"

const root = "deploy/kubernetes"
const kustomizations = ["base", "overlays/sqlite", "overlays/monitoring"]
const [base, sqlite, monitoring] = kustomizations.map((name) => render(join(root, name))) as [
  ReadonlyArray<Manifest>,
  ReadonlyArray<Manifest>,
  ReadonlyArray<Manifest>,
]

const find = <A>(manifests: ReadonlyArray<Manifest>, kind: string, name = "event-ingestor"): A => {
  const found = manifests.filter((one) => one.kind === kind && one.metadata.name === name)
  assert.lengthOf(found, 1, `${kind} ${name}`)
  return found[0] as A
}

const deployment = find<IDeployment>(base, "Deployment")
const statefulSet = find<IStatefulSet>(sqlite, "StatefulSet")
const settings = find<IConfigMap>(base, "ConfigMap").data!

const podOf = (workload: IDeployment | IStatefulSet): IPodSpec => workload.spec!.template.spec!
const containerOf = (workload: IDeployment | IStatefulSet): IContainer => {
  const { containers } = podOf(workload)
  assert.lengthOf(containers, 1)
  return containers[0]!
}

const labels = { "app.kubernetes.io/name": "event-ingestor" }

/** The variables that the image sets, from its Dockerfile. */
const imageVariables = Object.fromEntries(
  /^ENV (.*)$/m
    .exec(readFileSync("Dockerfile", "utf8"))![1]!
    .split(" ")
    .map((pair) => pair.split("=") as [string, string]),
)

/** What the API server knows of a pod. */
const podFields: Readonly<Record<string, string>> = { "metadata.name": "event-ingestor-5d8c7-x7k2p" }

/** The environment of a container, as the kubelet composes it. */
const environmentOf = ({ env = [], envFrom = [] }: IContainer) => {
  assert.deepStrictEqual(envFrom, [{ configMapRef: { name: "event-ingestor" } }])
  const variables: Record<string, string> = { ...imageVariables, ...settings }
  for (const { name, value, valueFrom } of env) {
    const field = valueFrom?.fieldRef?.fieldPath
    variables[name] =
      field === undefined
        ? value!.replaceAll(/\$\((\w+)\)/g, (whole, other: string) => variables[other] ?? whole)
        : podFields[field]!
  }
  return variables
}

/**
 * The volumes of a pod as directories of this machine, and its environment with the paths of these.
 *
 * @param secrets the content of the Secret that a user creates
 */
const mounted = (workload: IDeployment | IStatefulSet, secrets: Readonly<Record<string, string>>) =>
  Effect.map(directory, (place) => {
    const container = containerOf(workload)
    const claims = "serviceName" in workload.spec! ? (workload.spec.volumeClaimTemplates ?? []) : []
    const environment = environmentOf(container)
    for (const { name, mountPath } of container.volumeMounts!) {
      const volume = podOf(workload).volumes!.find((one) => one.name === name)
      const path = join(place, mountPath)
      mkdirSync(path, { recursive: true })
      if (volume?.secret) {
        assert.strictEqual(volume.secret.secretName, "event-ingestor")
        for (const [key, value] of Object.entries(secrets)) writeFileSync(join(path, key), `${value}\n`)
      } else
        assert.isTrue(
          claims.some(({ metadata }) => metadata?.name === name),
          name,
        )
    }
    const mounts = container.volumeMounts!.map(({ mountPath }) => mountPath)
    for (const [variable, value] of Object.entries(environment))
      if (mounts.some((path) => value.startsWith(`${path}/`))) environment[variable] = join(place, value)
    return { place, environment }
  })

/** Starts a container as a process: the entry point of the image, which image.test.ts checks, and its environment. */
const startContainer = (
  workload: IDeployment | IStatefulSet,
  environment: Readonly<Record<string, string>>,
) => {
  const { args = [], command } = containerOf(workload)
  assert.isUndefined(command, "the entry point of the image")
  return Service.start({ args, env: environment, cwd: "/" })
}

/** The answer to a probe, as the kubelet sends it: to the address of the pod, for which the process listens on all addresses. */
const probe = (
  workload: IDeployment | IStatefulSet,
  service: Service.Process,
  name: "startup" | "readiness" | "liveness",
) =>
  Effect.gen(function* () {
    const container = containerOf(workload)
    const { httpGet } = container[`${name}Probe`] as IProbe
    const port = container.ports!.find((port) => port.name === httpGet!.port)!.containerPort
    const host = `10.244.1.7:${port}`
    const { status } = yield* fetchFrom(yield* service.port, httpGet!.path!, { headers: { host } })
    return status
  })

const untilReady = (workload: IDeployment | IStatefulSet, service: Service.Process) => {
  const { failureThreshold, periodSeconds } = containerOf(workload).startupProbe!
  return Effect.repeat(probe(workload, service, "startup"), {
    until: (status) => status === 200,
    schedule: Schedule.spaced("50 millis"),
  }).pipe(
    Effect.andThen(probe(workload, service, "readiness")),
    Effect.tap((status) => Effect.sync(() => assert.strictEqual(status, 200))),
    Effect.timeoutOrElse({
      duration: Duration.seconds(failureThreshold! * periodSeconds!),
      orElse: () => Effect.die(new Error(`not ready:\n${service.output()}`)),
    }),
  )
}

/** Stops a container as the kubelet does, which kills it after the grace period. */
const terminate = (workload: IDeployment | IStatefulSet, service: Service.Process) =>
  Effect.gen(function* () {
    service.kill("SIGTERM")
    const exit = yield* Effect.timeoutOrElse(service.exit, {
      duration: Duration.seconds(podOf(workload).terminationGracePeriodSeconds!),
      orElse: () => Effect.die(new Error(`not ended within its grace period:\n${service.output()}`)),
    })
    assert.strictEqual(exit, 0, service.output() + service.errors())
  })

/** The scrape of a PodMonitor, with the token that it names or without one. */
const scrape = (service: Service.Process, secrets: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const { spec } = find<IPodMonitor>(monitoring, "PodMonitor")
    const [{ authorization, path, port }] = spec.podMetricsEndpoints as [
      NonNullable<IPodMonitor["spec"]["podMetricsEndpoints"]>[number],
    ]
    assert.strictEqual(port, containerOf(deployment).ports![0]!.name)
    assert.strictEqual(authorization!.credentials!.name, "event-ingestor")
    const bearer = `Bearer ${secrets[authorization!.credentials!.key]}`
    const without = yield* fetchFrom(yield* service.port, path!)
    assert.strictEqual(without.status, 401)
    return yield* fetchFrom(yield* service.port, path!, { headers: { authorization: bearer } })
  })

/** The endpoints of the four chains: one that works, and providers that refuse connections. */
const endpoints = (url: string) => ({
  ETHEREUM_WS_URL: url,
  ARBITRUM_WS_URL: "ws://127.0.0.1:1",
  OPTIMISM_WS_URL: "ws://127.0.0.1:1",
  BASE_WS_URL: "ws://127.0.0.1:1",
  METRICS_TOKEN: "token-of-the-test",
})

const kubectl = spawnSync("kubectl", ["version", "--client"], { encoding: "utf8" }).stdout ?? ""

describe("the manifests for Kubernetes", () => {
  it.effect("are valid by the schemas of Kubernetes and of the Prometheus Operator", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        [...new Set([...base, ...sqlite, ...monitoring].map(({ kind }) => kind))].toSorted(),
        [
          "ConfigMap",
          "Deployment",
          "Namespace",
          "NetworkPolicy",
          "PodDisruptionBudget",
          "PodMonitor",
          "PrometheusRule",
          "Service",
          "StatefulSet",
        ],
      )
      assert.deepStrictEqual(yield* problemsOf([...base, ...sqlite, ...monitoring]), [])
    }),
  )

  it.effect(
    "would not be valid with an unknown field, a value of another type, or without a required one",
    () =>
      Effect.gen(function* () {
        const cases: ReadonlyArray<readonly [kind: string, from: string, to: string, problem: RegExp]> = [
          [
            "Deployment",
            '"livenessProbe":{"httpGet"',
            '"livenessProbe":{"httpGett"',
            /'"httpGett"' does not exist/,
          ],
          ["Deployment", '"replicas":3', '"replicas":"three"', /spec\/replicas must be integer/],
          [
            "PodDisruptionBudget",
            "AlwaysAllow",
            "Always",
            /unhealthyPodEvictionPolicy must be equal to one of/,
          ],
          ["NetworkPolicy", '"cidr":"0.0.0.0/0"', '"cidrr":"0.0.0.0/0"', /must have required property cidr/],
          ["PodMonitor", '"selector"', '"select"', /must have required property selector/],
          ["PodMonitor", '"labeldrop"', '"labeldropp"', /action must be equal to one of/],
          ["PrometheusRule", '"expr"', '"expression"', /'"expression"' does not exist/],
        ]
        const wrong = cases.map(([kind, from, to]) => {
          const text = JSON.stringify(find([...base, ...monitoring], kind))
          assert.include(text, from)
          return JSON.parse(text.replace(from, to)) as Manifest
        })
        const problems = (yield* problemsOf(wrong)).join("\n")
        for (const [, , , problem] of cases) assert.match(problems, problem)
      }),
  )

  it.skipIf(!/Kustomize Version: v5/.test(kubectl))(
    "are what kubectl makes of them, where it is installed",
    () => {
      const sorted = (manifests: ReadonlyArray<Manifest>) =>
        manifests.toSorted((a, b) =>
          `${a.kind} ${a.metadata.name}`.localeCompare(`${b.kind} ${b.metadata.name}`),
        )
      for (const name of kustomizations) {
        const output = execFileSync("kubectl", ["kustomize", join(root, name)], { encoding: "utf8" })
        const withoutHashes = output.replaceAll(/^( *name: event-ingestor)-[a-z0-9]{10}$/gm, "$1")
        const made = parseAllDocuments(withoutHashes).map((document) => document.toJS() as Manifest)
        assert.deepStrictEqual(sorted(made), sorted(render(join(root, name))), name)
      }
    },
  )

  it("meet the restricted Pod Security Standard, and write only to their volume", () => {
    const { metadata } = find<INamespace>(base, "Namespace")
    assert.strictEqual(metadata?.labels?.["pod-security.kubernetes.io/enforce"], "restricted")
    for (const workload of [deployment, statefulSet]) {
      const pod = podOf(workload)
      assert.isFalse(pod.automountServiceAccountToken)
      assert.deepInclude(pod.securityContext, {
        runAsNonRoot: true,
        seccompProfile: { type: "RuntimeDefault" },
      })
      assert.notProperty(pod, "hostNetwork")
      assert.notProperty(pod, "initContainers")
      assert.deepStrictEqual(containerOf(workload).securityContext, {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      })
      assert.isTrue(pod.volumes!.every(({ secret }) => secret?.defaultMode === 0o440))
      const owner = /^USER \d+:(\d+)$/m.exec(readFileSync("Dockerfile", "utf8"))![1]
      assert.strictEqual(String(pod.securityContext!.fsGroup), owner)
      const writable = containerOf(workload).volumeMounts!.filter(({ readOnly }) => readOnly !== true)
      assert.deepStrictEqual(
        writable.map(({ mountPath }) => mountPath),
        workload === statefulSet ? ["/data"] : [],
      )
    }
  })

  it("select the pods that they are meant for, and run the version of this repository", () => {
    const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { readonly version: string }
    for (const workload of [deployment, statefulSet]) {
      assert.deepStrictEqual(workload.spec!.selector.matchLabels, labels)
      assert.deepStrictEqual(workload.spec!.template.metadata!.labels, labels)
      assert.strictEqual(containerOf(workload).image, `event-ingestor:${version}`)
    }
    const budget = find<IPodDisruptionBudget>(base, "PodDisruptionBudget").spec!
    assert.deepInclude(budget, {
      selector: { matchLabels: labels },
      maxUnavailable: 1,
      unhealthyPodEvictionPolicy: "AlwaysAllow",
    })
    const spread = podOf(deployment).topologySpreadConstraints!
    for (const { labelSelector } of spread) assert.deepStrictEqual(labelSelector, { matchLabels: labels })
    assert.deepStrictEqual(find<IPodMonitor>(monitoring, "PodMonitor").spec.selector, { matchLabels: labels })
    assert.deepStrictEqual(deployment.spec!.strategy!.rollingUpdate, { maxSurge: 1, maxUnavailable: 0 })
    for (const { metadata } of [...base, ...sqlite, ...monitoring]) {
      assert.deepInclude(metadata.labels ?? labels, labels)
      assert.include(["event-ingestor", undefined], metadata.namespace)
    }
    assert.isFalse(sqlite.some(({ kind }) => kind === "Deployment"))
  })

  it("differ between Redis and SQLite only in the store and the volume", () => {
    const ofStore = new Set(["FLEET", "REDIS_URL_FILE", "DATABASE_PATH"])
    const common = (workload: IDeployment | IStatefulSet) => {
      const { topologySpreadConstraints: _, containers, securityContext, ...pod } = podOf(workload)
      const { fsGroupChangePolicy: _policy, ...context } = securityContext!
      const [{ env, volumeMounts, ...container }] = containers as [IContainer]
      return {
        ...pod,
        context,
        container,
        env: env!.filter(({ name }) => !ofStore.has(name)),
        mounts: volumeMounts!.filter(({ name }) => name !== "data"),
      }
    }
    assert.deepStrictEqual(common(statefulSet), common(deployment))
  })

  it.effect(
    "set variables that exist, listen on the port they name, and stop within their grace period",
    () =>
      Effect.gen(function* () {
        const url = "redis://127.0.0.1:1"
        for (const workload of [deployment, statefulSet]) {
          const { environment } = yield* mounted(workload, {
            ...endpoints("ws://127.0.0.1:1"),
            REDIS_URL: url,
          })
          const config = yield* fromVariables(environment)
          assert.deepStrictEqual(config.warnings, [])
          assert.lengthOf(config.chains, 4)
          assert.isDefined(config.http.token)
          assert.deepStrictEqual(containerOf(workload).ports, [
            { name: "http", containerPort: config.http.port },
          ])
          assert.isFalse(["127.0.0.1", "localhost"].includes(config.http.host))
          assert.isBelow(
            Duration.toSeconds(config.shutdownTimeout) * 2,
            podOf(workload).terminationGracePeriodSeconds!,
          )
          if (workload === statefulSet) {
            assert.isUndefined(config.fleet)
            const [claim] = statefulSet.spec!.volumeClaimTemplates!
            const size = Number(/^(\d+)Gi$/.exec(String(claim!.spec!.resources!.requests!["storage"]))![1])
            const entries = config.chains.length * config.retention.maxLength
            assert.isAbove(size * 1024 ** 3, 2 * entries * entryBytes.most)
          } else {
            assert.strictEqual(config.fleet?.name, "main")
            assert.strictEqual(config.store._tag, "Redis")
          }
          const traced = yield* fromVariables({
            ...environment,
            OTEL_EXPORTER_OTLP_ENDPOINT: "http://otel:4318",
          })
          assert.deepStrictEqual(traced.telemetry?.attributes, {
            "service.instance.id": podFields["metadata.name"]!,
          })
          assert.isUndefined(traced.telemetry?.metrics)
        }
      }).pipe(Effect.scoped),
  )

  it("open the ports in use: HTTP inwards; DNS, Redis, OTLP and HTTPS outwards", () => {
    const { egress, ingress, podSelector, policyTypes } = find<INetworkPolicy>(base, "NetworkPolicy").spec!
    assert.deepStrictEqual(podSelector, { matchLabels: labels })
    assert.deepStrictEqual(policyTypes, ["Ingress", "Egress"])
    const inwards = ingress!.flatMap(({ ports }) => ports!.map(({ port }) => port))
    assert.deepStrictEqual(inwards, [containerOf(deployment).ports![0]!.name])
    const outwards = egress!.flatMap(({ ports }) => ports!.map(({ port }) => port))
    assert.deepStrictEqual(outwards, [53, 53, 6379, 26379, 4318, 443])
  })

  it("have the alerts and dashboards of the compose stack", () => {
    const { status, stderr } = spawnSync(process.execPath, ["scripts/kubernetes.mjs", "--check"])
    assert.strictEqual(status, 0, stderr.toString())
    const { spec } = find<IPrometheusRule>(monitoring, "PrometheusRule")
    const alerts = parse(readFileSync("deploy/prometheus/alerts.yaml", "utf8")) as unknown
    assert.deepStrictEqual(spec as unknown, alerts)
    for (const name of ["overview", "internals"]) {
      const dashboard = find<IConfigMap>(monitoring, "ConfigMap", `event-ingestor-${name}`)
      const file = readFileSync(`deploy/grafana/dashboards/${name}.json`, "utf8")
      assert.deepStrictEqual(dashboard.data, { [`${name}.json`]: file })
      assert.strictEqual(dashboard.metadata?.labels?.["grafana_dashboard"], "1")
      assert.isBelow(JSON.stringify(dashboard).length, 256 * 1024, "the limit of annotations")
    }
  })

  it("leave the labels of the metrics as they are", () => {
    const { relabelings } = find<IPodMonitor>(monitoring, "PodMonitor").spec.podMetricsEndpoints![0]!
    const isDropped = (label: string) =>
      relabelings!.some(({ action, regex }) => action === "labeldrop" && regex === label)
    // Those that the operator gives a pod's target.
    const ofTarget = ["job", "instance", "namespace", "pod", "container", "endpoint"]
    const ours = definitions.flatMap(({ labels }) => labels)
    assert.deepStrictEqual(
      ofTarget.filter((label) => !isDropped(label) && ours.includes(label)),
      [],
    )
    assert.include(ours, "endpoint")
    assert.isTrue(relabelings!.some(({ targetLabel }) => targetLabel === "instance"))
  })

  it.live(
    "run as a fleet: not ready without Redis and alive, ready with failing providers, and replaced by another replica",
    () =>
      Effect.gen(function* () {
        const redis = yield* RedisServer.start()
        const devnet = yield* Devnet.start([], 1)
        const secrets = { ...endpoints(devnet.anvil.url), REDIS_URL: redis.url }
        const { environment } = yield* mounted(deployment, secrets)
        redis.kill("SIGSTOP")
        const old = yield* startContainer(deployment, environment)
        assert.strictEqual(yield* probe(deployment, old, "startup"), 503)
        assert.strictEqual(yield* probe(deployment, old, "readiness"), 503)
        assert.strictEqual(yield* probe(deployment, old, "liveness"), 200)
        redis.kill("SIGCONT")
        yield* untilReady(deployment, old)
        assert.strictEqual(yield* probe(deployment, old, "liveness"), 200)
        const chains = yield* fetchFrom(yield* old.port, "/ready")
        assert.strictEqual(chains.status, 503, "three of the providers refuse connections")
        const { status, text } = yield* scrape(old, secrets)
        assert.strictEqual(status, 200)
        assert.match(text, /^event_ingestor_fleet_members\{.*fleet="main".*\} 1$/m)

        const surge = yield* startContainer(deployment, environment)
        yield* untilReady(deployment, surge)
        yield* terminate(deployment, old)
        assert.strictEqual(yield* probe(deployment, surge, "readiness"), 200)
        yield* devnet.block(2)
        const { number } = yield* devnet.head
        yield* Effect.repeat(
          Effect.promise(() => redis.client.hget("{events:1}:head", "number")),
          { until: (stored) => Number(stored) === number, schedule: Schedule.spaced("20 millis") },
        )
        yield* terminate(deployment, surge)
      }).pipe(Effect.scoped),
    60_000,
  )

  it.live(
    "run with SQLite: ready with failing providers, and with the journal on the volume after a restart",
    () =>
      Effect.gen(function* () {
        const devnet = yield* Devnet.start([], 1)
        const secrets = endpoints(devnet.anvil.url)
        const { environment, place } = yield* mounted(statefulSet, secrets)
        for (const logs of [1, 2]) {
          const service = yield* startContainer(statefulSet, environment)
          yield* untilReady(statefulSet, service)
          assert.strictEqual(yield* probe(statefulSet, service, "liveness"), 200)
          yield* devnet.block(logs)
          const { number } = yield* devnet.head
          const stored = new RegExp(
            `^event_ingestor_chain_stored_block\\{.*chain="ethereum".*\\} ${number}$`,
            "m",
          )
          yield* Effect.repeat(scrape(service, secrets), {
            until: ({ text }) => stored.test(text),
            schedule: Schedule.spaced("20 millis"),
          })
          yield* terminate(statefulSet, service)
        }
        assert.isTrue(existsSync(join(place, "data/events.db")))
      }).pipe(Effect.scoped),
    60_000,
  )
})
