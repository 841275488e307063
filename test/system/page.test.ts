/** The page of the real service in a real browser. */
import { assert, layer } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { join } from "node:path"
import { Browser, legibility, open } from "../support/Browser.ts"
import type { Opened } from "../support/Browser.ts"
import { directory } from "../support/directory.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode, Refused } from "../support/FakeNode.ts"
import { fetchFrom } from "../support/http.ts"
import * as RedisServer from "../support/RedisServer.ts"
import * as Service from "../support/Service.ts"

/** Two chains on scripted nodes, and the service that follows them. */
const world = Effect.fnUntraced(function* (variables: Record<string, string> = {}) {
  const nodes = [new FakeNode(new FakeChain({ id: 501 })), new FakeNode(new FakeChain({ id: 502 }))] as const
  for (const { chain } of nodes) chain.extend(1, 2)
  const [alpha, beta] = nodes
  const env: Record<string, string> = {
    CHAINS: "alpha,beta",
    START_BLOCK: "0",
    ALPHA_CHAIN_ID: "501",
    BETA_CHAIN_ID: "502",
    ALPHA_WS_URL: yield* alpha.serve,
    BETA_WS_URL: yield* beta.serve,
    DATABASE_PATH: join(yield* directory, "events.db"),
    ...variables,
  }
  const service = yield* Service.start({ env })
  return { alpha, beta, env, service, port: yield* service.port }
})

const at = (opened: Opened, selector: string) => opened.page.locator(selector)

/** Waits until an element contains this text. */
const shows = (opened: Opened, selector: string, text: string | RegExp) =>
  Effect.promise(() => at(opened, selector).filter({ hasText: text }).first().waitFor())

const textOf = (opened: Opened, selector: string) =>
  Effect.promise(() => at(opened, selector).first().innerText())

const press = (opened: Opened, key: string) => Effect.promise(() => opened.page.keyboard.press(key))

/** The text of the focused element. */
const focused = (opened: Opened) => textOf(opened, ":focus")

const alpha = "section[aria-label=alpha]"
const beta = "section[aria-label=beta]"
const field = (chain: string, name: string) => `${chain} [data-field="${name}"]`

/** Every visible text has sufficient contrast in both colour schemes. */
const assertLegible = (opened: Opened) =>
  Effect.forEach(["light", "dark"] as const, (colorScheme) =>
    Effect.promise(async () => {
      await opened.page.emulateMedia({ colorScheme })
      const texts = await legibility(opened.page)
      assert.isAbove(texts.length, 40)
      assert.deepStrictEqual(
        texts.filter(({ ratio }) => ratio < 4.5),
        [],
        colorScheme,
      )
    }),
  )

const assertNarrow = (opened: Opened) =>
  Effect.promise(async () => {
    const before = opened.page.viewportSize()!
    await opened.page.setViewportSize({ width: 360, height: 740 })
    const box = await opened.page.locator("html").evaluate((html) => [html.scrollWidth, html.clientWidth])
    assert.deepStrictEqual(box, [360, 360])
    await opened.page.setViewportSize(before)
  })

/** The tests mostly wait for their services. */
const together = { concurrent: true, timeout: 60_000 }

layer(Browser.layer, { excludeTestServices: true })("the page", (it) => {
  it.effect(
    "shows each chain, its entries and its reorgs as they change",
    () =>
      Effect.gen(function* () {
        const { alpha: node, port } = yield* world({ BETA_HEADS: "poll" })
        const opened = yield* open(port)
        yield* shows(opened, "h1", "2 chains, all ready")
        const polled = at(opened, `${beta} [data-list=endpoints]`).filter({ hasText: "heads are polled" })
        yield* Effect.promise(() => polled.waitFor({ state: "attached" }))
        yield* shows(opened, field(alpha, "head"), /^2$/)
        yield* shows(opened, field(alpha, "phase"), "live")
        node.intercept = (method, _params, proceed) => {
          if (method === "eth_getLogs") throw new Refused(-32601, "the method does not exist")
          return proceed()
        }
        node.chain.extend(4, 3)
        yield* shows(opened, field(alpha, "head"), /^4$/)
        yield* shows(opened, field(alpha, "stored"), /^4$/)
        yield* shows(opened, field(alpha, "p50"), /^\d+ ms$/)
        yield* shows(opened, `${alpha} [data-list=stream]`, "10 published")
        yield* shows(opened, field(alpha, "rate"), /[1-9]/)
        yield* shows(opened, `${alpha} [data-list=endpoints]`, /in use.*refuses eth_getLogs/)
        assert.match(yield* textOf(opened, field(alpha, "endpoint")), /^127\.0\.0\.1:\d+$/)
        assert.match(yield* textOf(opened, field(alpha, "lag")), /^\d+\.\d s$/)
        yield* shows(opened, "tbody tr:first-child", /alpha42 *0x[0-9a-f]{40}/)

        node.chain.fork(2, 1, 1, 1)
        yield* shows(opened, field(alpha, "head"), /^5$/)
        yield* shows(opened, `${alpha} h3`, "Reorgs: 1, deepest 2")
        yield* shows(opened, `${alpha} [data-list=reorgs]`, "2 blocks from 4 down")
        yield* shows(opened, `${alpha} [data-list=stream]`, "7 removed")
        yield* Effect.promise(() => at(opened, "tbody tr.removed").nth(6).waitFor())
        // The newest first: three new blocks, then the retracted entries, of which the highest log was retracted first.
        const blocks = yield* Effect.promise(() => at(opened, "tbody tr").allInnerTexts())
        const short = blocks
          .slice(0, 11)
          .map((row) => row.replace(/^(.).*?\talpha\t(\d+)\t(\d+)\t.*$/s, "$1$2:$3"))
        assert.strictEqual(short.join(" "), "+5:0 +4:0 +3:0 −3:0 −3:1 −3:2 −3:3 −4:0 −4:1 −4:2 +4:2")
        assert.strictEqual(yield* textOf(opened, field(beta, "head")), "2")
        // The peak is never below the current value.
        const [, rate, peak] = /Logs\/s\s+([\d.]+)\s+peak ([\d.]+)/.exec(yield* textOf(opened, alpha))!
        assert.isAtLeast(Number(peak), Math.floor(Number(rate)))
        const points = (name: string) =>
          Effect.promise(() => at(opened, `${alpha} [data-curve=${name}] .line`).getAttribute("d"))
        for (const name of ["lag", "rate"]) assert.match((yield* points(name))!, /^M[\d.]+,[\d.]+L/)

        // The accessibility tree for screen readers.
        const tree = yield* Effect.promise(() => opened.page.locator("body").ariaSnapshot())
        for (const expected of [
          '- heading "2 chains, all ready" [level=1]',
          '- region "alpha"',
          '- button "alpha" [expanded]',
          '- img "Lag in 5 minutes, at most',
          '- searchbox "Filter"',
          '- button "Pause"',
          '- columnheader "Contract"',
          '- row "− removed',
        ]) {
          assert.include(tree, expected)
        }
        yield* assertLegible(opened)
        yield* assertNarrow(opened)
        assert.deepStrictEqual(opened.complaints, [])
      }),
    together,
  )

  it.effect(
    "runs only its own script, under a strict policy",
    () =>
      Effect.gen(function* () {
        const { port } = yield* world()
        const opened = yield* open(port)
        const policy = opened.headers["content-security-policy"]!
        assert.match(
          policy,
          /^default-src 'none'; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+';/,
        )
        assert.notMatch(policy, /unsafe|\*|https?:/)
        assert.include(policy, "frame-ancestors 'none'")
        assert.deepInclude(opened.headers, {
          "content-type": "text/html; charset=utf-8",
          "cache-control": "no-store",
          "x-content-type-options": "nosniff",
        })
        yield* shows(opened, "h1", "all ready")
        // Injected markup and scripts have no effect.
        const ran = yield* Effect.promise(() =>
          opened.page.locator("body").evaluate((body) => {
            const script = body.ownerDocument.createElement("script")
            let refused = ""
            try {
              script.textContent = "document.title = 'taken over'"
              body.append(script)
              body.innerHTML = "<b>markup</b>"
            } catch (error) {
              refused = String(error)
            }
            return { refused, title: body.ownerDocument.title }
          }),
        )
        assert.match(ran.refused, /TrustedHTML|TrustedScript/)
        assert.strictEqual(ran.title, "Event Ingestor")
      }),
    together,
  )

  it.effect(
    "names the chain that fails, why and until when, and shows the provider's message as text",
    () =>
      Effect.gen(function* () {
        const { beta: node, port } = yield* world()
        const opened = yield* open(port)
        yield* shows(opened, "h1", "all ready")
        const hostile = `<img src=x onerror="document.title='taken'"><script>document.title='over'</script>`
        node.intercept = () => {
          throw new Refused(-32000, hostile)
        }
        node.drop()
        yield* shows(opened, `${beta} [data-list=errors]`, hostile)
        node.up = false
        yield* shows(opened, "h1", "1 of 2 chains not ready: beta")
        yield* shows(opened, field(beta, "breaker"), "open")
        yield* shows(opened, field(beta, "breaker-sub"), /^next try in \d+ s$/)
        yield* shows(opened, field(beta, "reason"), /the breaker is open after \d+ failures/)
        yield* shows(opened, field(beta, "endpoint-sub"), "not connected")
        assert.strictEqual(yield* textOf(opened, field(alpha, "phase")), "live")
        assert.strictEqual(yield* Effect.promise(() => at(opened, "img, main script").count()), 0)
        assert.match(yield* Effect.promise(() => opened.page.title()), /^\(!\) 1 of 2 chains not ready/)
        yield* assertLegible(opened)
        yield* assertNarrow(opened)
        assert.deepStrictEqual(opened.complaints, [])
      }),
    together,
  )

  it.effect(
    "shows what a group missed, that the store is not writable, and that it recovers",
    () =>
      Effect.gen(function* () {
        const redis = yield* RedisServer.start()
        yield* Effect.promise(() => redis.client.xgroup("CREATE", "events:501", "slow", "$", "MKSTREAM"))
        yield* Effect.promise(() => redis.client.hset("{events:501}:missed", "group:slow", "7"))
        const { alpha: node, port } = yield* world({ REDIS_URL: redis.url })
        const opened = yield* open(port)
        yield* shows(opened, "h1", "2 chains, all ready")
        yield* shows(opened, `${alpha} [data-list=stream]`, /slow[^]*7 missed: trimmed before they were read/)
        redis.kill("SIGKILL")
        node.chain.extend(2)
        yield* shows(opened, "h1", "The store is not writable")
        yield* shows(opened, `.store [data-field="state"]`, "not writable")
        // First the push fails, then the probes: the cause that is shown is the latest.
        yield* shows(opened, `.store [data-field="reason"]`, /^store (push|ping) failed \(unreachable\)/)
        yield* shows(opened, field(alpha, "phase"), "store unavailable")
        yield* shows(opened, field(alpha, "stored-sub"), "1 behind")
        yield* assertLegible(opened)
        yield* redis.restart
        yield* shows(opened, `.store [data-field="state"]`, /^writable/)
        yield* shows(opened, field(alpha, "stored"), /^3$/)
        assert.deepStrictEqual(opened.complaints, [])
      }),
    together,
  )

  it.effect(
    "works with the keyboard, and its list can be filtered and paused",
    () =>
      Effect.gen(function* () {
        const { alpha: node, beta: other, port } = yield* world()
        const opened = yield* open(port)
        yield* shows(opened, "tbody tr", "alpha")
        yield* shows(opened, "tbody tr", "beta")
        yield* press(opened, "Tab")
        assert.strictEqual(yield* focused(opened), "alpha")
        const details = at(opened, `${alpha} .details`)
        assert.isTrue(yield* Effect.promise(() => details.isVisible()))
        yield* press(opened, "Enter")
        assert.isFalse(yield* Effect.promise(() => details.isVisible()))
        assert.strictEqual(
          yield* Effect.promise(() => at(opened, ":focus").getAttribute("aria-expanded")),
          "false",
        )
        yield* press(opened, "Tab")
        assert.strictEqual(yield* focused(opened), "beta")
        yield* press(opened, "Tab")
        assert.strictEqual(
          yield* Effect.promise(() => opened.page.getByLabel("Filter").getAttribute("id")),
          yield* Effect.promise(() => at(opened, ":focus").getAttribute("id")),
        )
        yield* press(opened, "Tab")
        assert.strictEqual(yield* focused(opened), "Pause")
        yield* press(opened, "/")
        yield* Effect.promise(() => opened.page.keyboard.type("BETA 0x"))
        const chains = () => Effect.promise(() => at(opened, "tbody td.chain-name").allInnerTexts())
        assert.deepStrictEqual(yield* chains(), ["beta", "beta", "beta"])
        node.chain.extend(1)
        yield* shows(opened, field(alpha, "stored"), /^3$/)
        other.chain.extend(2)
        yield* shows(opened, "#tail-count", "the latest 5 that match")
        assert.deepStrictEqual(new Set(yield* chains()), new Set(["beta"]))
        yield* Effect.promise(() => opened.page.getByLabel("Filter").fill("nothing like this"))
        yield* shows(opened, "#tail-empty", "No match in the latest 9 entries.")
        yield* Effect.promise(() => opened.page.getByLabel("Filter").fill(""))
        assert.strictEqual((yield* chains()).length, 9)

        yield* Effect.promise(() => opened.page.getByRole("button", { name: "Pause" }).press("Space"))
        node.chain.extend(3)
        yield* shows(opened, "#tail-count", "paused, 3 new")
        assert.strictEqual((yield* chains()).length, 9)
        yield* Effect.promise(() => opened.page.getByRole("button", { name: "Pause" }).press("Space"))
        assert.strictEqual((yield* chains()).length, 12)
      }),
    together,
  )

  it.effect(
    "never shows outdated data as live, and reconnects by itself",
    () =>
      Effect.gen(function* () {
        const { env, port, service } = yield* world()
        const opened = yield* open(port)
        yield* shows(opened, "h1", "all ready")
        yield* shows(opened, "#link", /^live$/)
        service.kill("SIGKILL")
        yield* shows(opened, "#link", "not live")
        yield* shows(opened, "h1", "Disconnected")
        yield* shows(opened, "#banner", /No events since \d\d:\d\d:\d\d/)
        yield* service.exit
        yield* Service.start({ env: { ...env, HTTP_PORT: String(port) } })
        yield* shows(opened, "#link", /^live$/)
        yield* shows(opened, "h1", "2 chains, all ready")
        yield* Effect.promise(() => at(opened, "#banner").waitFor({ state: "hidden" }))
      }),
    together,
  )

  it.effect(
    "requires the token, and receives events with it",
    () =>
      Effect.gen(function* () {
        const { alpha: node, port } = yield* world({ METRICS_TOKEN: "t0ken" })
        for (const path of ["/", "/events"]) {
          const { headers, status } = yield* Effect.retry(fetchFrom(port, path), Schedule.recurs(3))
          assert.deepStrictEqual([status, headers["www-authenticate"]], [401, 'Basic realm="event-ingestor"'])
        }
        const wrong = yield* open(port, { httpCredentials: { username: "me", password: "wrong" } })
        assert.strictEqual(wrong.status, 401)
        const opened = yield* open(port, { httpCredentials: { username: "me", password: "t0ken" } })
        yield* shows(opened, "h1", "2 chains, all ready")
        node.chain.extend(1)
        yield* shows(opened, field(alpha, "head"), /^3$/)
      }),
    together,
  )

  it.effect(
    "shows every chain of a fleet, and which replica follows it, on the page of any replica",
    () =>
      Effect.gen(function* () {
        const redis = yield* RedisServer.start()
        const { alpha: node, beta: other, env, port } = yield* world({ REDIS_URL: redis.url, FLEET: "main" })
        const second = yield* Service.start({ env })
        const opened = yield* open(port)
        yield* shows(opened, ".fleet [data-field=description]", "main, 2 replicas")
        yield* shows(opened, ".fleet [data-field=state]", /^member$/)
        yield* shows(opened, ".fleet li", /this replica, 1 chain$/)
        yield* shows(opened, ".fleet li:not(:has-text('this replica'))", /1 chain$/)
        yield* shows(opened, "h1", "2 chains, all ready")
        const isAlpha = (yield* textOf(opened, field(alpha, "replica"))) === "on this replica"
        const [there, chain] = isAlpha ? [beta, other.chain] : [alpha, node.chain]
        yield* shows(opened, field(there, "replica"), /^on \S+-\d+-[0-9a-f]{6}$/)
        yield* shows(opened, field(there, "phase"), "live")
        yield* shows(opened, field(there, "head"), /^2$/)
        chain.extend(3, 2)
        yield* shows(opened, field(there, "head"), /^4$/)
        yield* shows(opened, field(there, "stored"), /^4$/)
        yield* shows(opened, `${there} [data-list=endpoints]`, /127\.0\.0\.1:\d+ in use/)
        yield* shows(opened, "#tail-title", "Latest entries of this replica")
        yield* assertLegible(opened)
        yield* assertNarrow(opened)

        second.kill("SIGKILL")
        yield* shows(opened, field(there, "replica"), "on this replica")
        yield* shows(opened, ".fleet [data-field=description]", "main, 1 replica")
        yield* shows(opened, field(there, "phase"), "live")
        redis.kill("SIGKILL")
        yield* shows(opened, ".fleet [data-field=state]", "not a member")
        yield* shows(opened, "h1", "This replica is not a member of the fleet")
        yield* assertLegible(opened)
        assert.deepStrictEqual(opened.complaints, [])
      }),
    // After the others: it has two services.
    { concurrent: false, timeout: 60_000 },
  )
})
