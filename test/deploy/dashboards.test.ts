/** The dashboards: sound as files, and every query of theirs answered by a real Prometheus that scrapes the real service. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { parse } from "yaml"
import { definitions } from "../../src/observability/Metrics.ts"
import * as Devnet from "../support/devnet.ts"
import * as Prometheus from "../support/Prometheus.ts"
import * as RedisServer from "../support/RedisServer.ts"
import { defined, seriesOf } from "../support/series.ts"
import * as Service from "../support/Service.ts"
import { privateWords } from "../support/words.ts"

interface Target {
  readonly refId: string
  readonly expr: string
  readonly legendFormat: string
  readonly datasource: { readonly uid: string }
}

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly datasource?: { readonly type: string; readonly uid: string }
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: ReadonlyArray<Target>
  readonly links?: ReadonlyArray<{ readonly title: string; readonly url: string }>
  readonly fieldConfig?: {
    readonly defaults: {
      readonly unit?: string
      readonly thresholds?: { readonly steps: ReadonlyArray<{ readonly value: number | null }> }
    }
  }
}

interface Dashboard {
  readonly uid: string
  readonly title: string
  readonly panels: ReadonlyArray<Panel>
  readonly annotations: {
    readonly list: ReadonlyArray<{
      readonly name: string
      readonly expr?: string
      readonly datasource: { readonly uid: string }
    }>
  }
  readonly templating: {
    readonly list: ReadonlyArray<{
      readonly name: string
      readonly type: string
      readonly query: string | { readonly query: string }
      readonly datasource?: { readonly uid: string }
    }>
  }
  readonly links: ReadonlyArray<{ readonly type: string; readonly url: string }>
}

const folder = "deploy/grafana/dashboards"

const dashboards = readdirSync(folder).map(
  (file) => JSON.parse(readFileSync(`${folder}/${file}`, "utf8")) as Dashboard,
)

const sources = parse(readFileSync("deploy/grafana/provisioning/datasources/datasources.yaml", "utf8")) as {
  readonly datasources: ReadonlyArray<{
    readonly uid: string
    readonly jsonData: {
      readonly tracesToMetrics?: {
        readonly datasourceUid: string
        readonly queries: ReadonlyArray<{ readonly query: string }>
      }
      readonly exemplarTraceIdDestinations?: ReadonlyArray<{ readonly datasourceUid: string }>
    }
  }>
}

const panels = dashboards.flatMap(({ title, panels }) =>
  panels.filter(({ type }) => type !== "row").map((panel) => ({ board: title, panel })),
)

const toMetrics = sources.datasources.flatMap(({ jsonData }) => jsonData.tracesToMetrics ?? [])

/** Rows of Grafana's grid (30 px and a gap of 8) that a screen of 1080 lines shows below Grafana's and the browser's bars. */
const rowsOfAScreen = 24

/** The queries of panels and annotations, with their place. */
const expressions = dashboards.flatMap(({ title, panels, annotations }) => [
  ...panels.flatMap((panel) =>
    (panel.targets ?? []).map(({ expr }) => ({ place: `${title}, ${panel.title}`, expr })),
  ),
  ...annotations.list.flatMap(({ name, expr }) =>
    expr === undefined ? [] : [{ place: `${title}, annotation ${name}`, expr }],
  ),
])

/** Every query there is, with its place and the labels that its legend shows. */
const queries = [
  ...panels.flatMap(({ board, panel }) =>
    (panel.targets ?? []).map(({ expr, refId, legendFormat }) => ({
      place: `${board}, ${panel.title}, ${refId}`,
      expr,
      labels: [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!),
    })),
  ),
  ...dashboards.flatMap(({ title, annotations }) =>
    annotations.list.flatMap(({ name, expr }) =>
      expr === undefined ? [] : [{ place: `${title}, annotation ${name}`, expr, labels: ["chain"] }],
    ),
  ),
  ...toMetrics.flatMap(({ queries }) =>
    queries.map(({ query }) => ({
      place: "from a span to metrics",
      expr: query.replaceAll("$$__tags", 'chain="devnet"'),
      labels: ["chain"],
    })),
  ),
]

/** What Grafana would put in the place of its variables. */
const filledIn = (expr: string) =>
  expr
    .replaceAll(/\$(chain|instance)\b/g, ".*")
    .replaceAll("$__rate_interval", "5s")
    .replaceAll("$__range", "5m")

/** What a reader says of itself. */
const readerAt = (id: string) =>
  JSON.stringify({ id, offset: 0, block: 0, seen: Math.floor(Date.now() / 1000) })

describe("the dashboards", () => {
  it("are sound: titles, descriptions, units and thresholds, nothing on top of something else", () => {
    assert.deepStrictEqual(dashboards.map(({ uid }) => uid).toSorted(), [
      "ingestor-internals",
      "ingestor-overview",
    ])
    for (const { title, panels, templating, links } of dashboards) {
      assert.deepStrictEqual(
        templating.list.map(({ name, type }) => [name, type]),
        [
          ["datasource", "datasource"],
          ["chain", "query"],
          ["instance", "query"],
          ["runbook", "textbox"],
        ],
      )
      assert.strictEqual(new Set(panels.map(({ id }) => id)).size, panels.length)
      assert.isTrue(links.some(({ url }) => url.includes("%22datasource%22%3A%22tempo%22")))
      const taken = new Map<string, string>()
      for (const panel of panels) {
        const place = `${title}, ${panel.title}`
        const { x, y, w, h } = panel.gridPos
        assert.isAtMost(x + w, 24, place)
        for (let i = x; i < x + w; i++) {
          for (let j = y; j < y + h; j++) {
            assert.isUndefined(taken.get(`${i},${j}`), place)
            taken.set(`${i},${j}`, place)
          }
        }
        if (panel.type === "row") continue
        assert.isAbove(panel.description?.length ?? 0, 15, place)
        if (panel.type === "alertlist") continue
        assert.isAbove(panel.targets?.length ?? 0, 0, place)
        const { unit, thresholds } = panel.fieldConfig!.defaults
        assert.match(unit ?? "", /^(none|short|s|bytes|percentunit|reqps|ops|suffix: [\w/]+)$/, place)
        const [first, ...steps] = thresholds!.steps.map(({ value }) => value)
        assert.isNull(first, place)
        assert.deepStrictEqual(
          steps,
          steps.toSorted((a, b) => a! - b!),
          place,
        )
      }
    }
  })

  it("fit on a screen, where the overview is concerned", () => {
    const { panels } = dashboards.find(({ uid }) => uid === "ingestor-overview")!
    assert.strictEqual(Math.max(...panels.map(({ gridPos: { y, h } }) => y + h)), rowsOfAScreen)
  })

  it("ask the data source that is chosen", () => {
    for (const { title, panels, templating, annotations } of dashboards) {
      const asking = [
        ...panels.filter(({ type }) => type !== "row"),
        ...panels.flatMap(({ targets }) => targets ?? []),
        ...templating.list.filter(({ type }) => type === "query"),
        ...annotations.list.filter(({ expr }) => expr !== undefined),
      ]
      for (const { datasource } of asking) assert.strictEqual(datasource?.uid, "${datasource}", title)
    }
  })

  it("show the ingestors and chains that are chosen, in each query", () => {
    const ofChains = new Set(
      definitions.filter(({ labels }) => labels.includes("chain")).flatMap((one) => seriesOf(one)),
    )
    for (const { place, expr } of expressions) {
      for (const name of Prometheus.metricsOf(expr)) {
        const selectors = [...expr.matchAll(new RegExp(`\\b${name}(?!\\w)(\\{[^}]*\\})?`, "g"))]
        assert.isAbove(selectors.length, 0, place)
        for (const [, labels = ""] of selectors) {
          assert.include(labels, 'instance=~"$instance"', place)
          if (ofChains.has(name)) assert.include(labels, 'chain=~"$chain"', place)
        }
      }
    }
  })

  it("link to the runbook, each alert's section from the panels that show its cause, and the runbook names panels that exist", () => {
    const runbook = readFileSync("docs/RUNBOOK.md", "utf8")
    const sections = [...runbook.matchAll(/^## (.*)$/gm)].map(([, title]) => title!)
    const linked = panels.flatMap(({ panel }) => panel.links ?? [])
    for (const { title, url } of linked) {
      const alert = title.replace(/^Runbook: /, "")
      assert.strictEqual(url, `\${runbook}#${alert.toLowerCase()}`)
    }
    assert.deepStrictEqual(
      [...new Set(linked.map(({ title }) => title.replace(/^Runbook: /, "")))].toSorted(),
      sections.toSorted(),
    )
    for (const { links } of dashboards) assert.isTrue(links.some(({ url }) => url === "${runbook}"))
    const named = [...runbook.replaceAll("\n", " ").matchAll(/_(Overview|Internals)_ → ([^.;:()]+)/g)]
    assert.isAbove(named.length, 15)
    for (const [, board, names] of named) {
      const titles = panels.filter((one) => one.board.endsWith(board!)).map(({ panel }) => panel.title)
      for (const name of names!.split(", "))
        assert.isTrue(
          titles.some((title) => name === title || name.startsWith(`${title} `)),
          `${board}: ${name}`,
        )
    }
  })

  it("are written in the words of the field", () => {
    for (const file of readdirSync(folder)) {
      const found = [...readFileSync(`${folder}/${file}`, "utf8").matchAll(privateWords)].map(
        ([word]) => word,
      )
      assert.deepStrictEqual(found, [], file)
    }
  })

  it("lead from metrics to traces and back", () => {
    const uids = sources.datasources.map(({ uid }) => uid)
    const there = sources.datasources.flatMap(({ jsonData }) => jsonData.exemplarTraceIdDestinations ?? [])
    const links = [...there, ...toMetrics].map(({ datasourceUid }) => datasourceUid)
    assert.deepStrictEqual(links.toSorted(), ["prometheus", "tempo"])
    assert.includeMembers(uids, links)
  })

  it("read no metric that does not exist", () => {
    assert.deepStrictEqual(
      Prometheus.metricsOf(
        'sum by (a, b) (rate(x_total{c=~"d(e)"}[5m] offset 5m)) - ignoring(le) (up > 0) and on (f) z_info',
      ),
      ["x_total", "up", "z_info"],
    )
    for (const { place, expr } of queries) {
      const names = Prometheus.metricsOf(expr)
      assert.isAbove(names.length, 0, place)
      for (const name of names) assert.isTrue(defined.has(name), `${place}: ${name}`)
    }
  })

  it.live(
    "have data in every panel, for reorg marks, and for the variables; and no alert of a healthy service fires",
    () =>
      Effect.gen(function* () {
        const redis = yield* RedisServer.start(["--maxmemory", "512mb", "--maxmemory-policy", "noeviction"])
        const devnet = yield* Devnet.start()
        yield* Effect.promise(() =>
          redis.client.xgroup("CREATE", `events:${Devnet.chainId}`, "readers", "0", "MKSTREAM"),
        )
        const service = yield* Service.start({
          env: Devnet.environment(devnet.anvil.url, { REDIS_URL: redis.url }),
        })
        const prometheus = yield* Prometheus.start(yield* service.port, "deploy/prometheus/alerts.yaml")

        yield* Effect.promise(() =>
          redis.client.hset(`{events:${Devnet.chainId}}:readers`, "mirror", readerAt("0-0")),
        )
        // Only what was stored can be retracted.
        const stored = Effect.gen(function* () {
          const number = yield* Effect.promise(() =>
            redis.client.hget(`{events:${Devnet.chainId}}:head`, "number"),
          )
          return Number(number) === (yield* devnet.head).number
        })
        const traffic = Effect.gen(function* () {
          for (const logs of [3, 0, 20, 7]) yield* devnet.block(logs)
          yield* Prometheus.until(stored, (reached) => reached)
          yield* devnet.reorg(2)
        })
        yield* Effect.forkScoped(Effect.repeat(traffic, Schedule.spaced("200 millis")).pipe(Effect.orDie))

        const missing = new Set(queries.map(({ place }) => place))
        const answered = Effect.forEach(
          queries,
          ({ place, expr, labels }) =>
            Prometheus.until(prometheus.query(filledIn(expr)), (samples) =>
              samples.some(({ value }) => Number.isFinite(Number(value[1]))),
            ).pipe(
              Effect.tap((samples) =>
                Effect.sync(() => {
                  missing.delete(place)
                  for (const label of labels) assert.property(samples[0]!.metric, label, place)
                }),
              ),
            ),
          { concurrency: 8 },
        )
        yield* Effect.timeoutOrElse(answered, {
          duration: "45 seconds",
          orElse: () => Effect.die(new Error(`no data for:\n${[...missing].join("\n")}`)),
        })
        for (const { templating } of dashboards) {
          for (const { name, query } of templating.list) {
            if (typeof query === "string") continue
            const [, series, label] = /^label_values\((.+), (\w+)\)$/.exec(query.query)!
            assert.strictEqual(label, name)
            const values = yield* prometheus.ask(`label/${label}/values`, { "match[]": filledIn(series!) })
            assert.deepStrictEqual(values, [name === "chain" ? "devnet" : `127.0.0.1:${yield* service.port}`])
          }
        }

        const { groups } = (yield* prometheus.ask("rules")) as {
          groups: Array<{ rules: Array<{ name: string; health: string; state: string }> }>
        }
        const rules = groups.flatMap(({ rules }) => rules)
        assert.isAbove(rules.length, 10)
        for (const { name, health, state } of rules) {
          assert.notStrictEqual(health, "err", name)
          assert.notStrictEqual(state, "firing", name)
        }
      }).pipe(Effect.scoped),
    90_000,
  )
})
