/**
 * Renders the events of `/events`. Text enters the page only as text nodes, never as markup.
 *
 * @typedef {ReturnType<typeof import("../Report.ts").statusReport>} Report
 * @typedef {ReturnType<typeof import("../Report.ts").chainReport>} Chain
 * @typedef {import("../../observability/RecentEntries.ts").Row} Row
 * @typedef {{ lag_s: Array<number>, logs_per_s: Array<number> }} Curves
 * @typedef {{ chain: string, row: Row, text: string }} Entry
 */

/** Entries that the page keeps for the filter, and entries that it shows. */
const keptEntries = 1000
const shownEntries = innerWidth > 700 ? 100 : 40
/** Points of a curve, one a second. */
const points = 300
/** Milliseconds without an event after which the page counts as disconnected. */
const eventTimeout = 4000
/** Up to this many chains are expanded initially. */
const fewChains = 4

// -- formatting

const whole = new Intl.NumberFormat("en")
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 })

/** @param {number | null} n */
const count = (n) => (n === null ? "–" : whole.format(n))

/** @param {number} n @param {string} one @param {string} [many] */
const plural = (n, one, many = `${one}s`) => `${whole.format(n)} ${n === 1 ? one : many}`

/** @param {number} s */
const span = (s) => {
  if (s < 9.95) return `${s.toFixed(1)} s`
  if (s < 100) return `${Math.round(s)} s`
  if (s < 6000) return `${Math.round(s / 60)} min`
  const hours = Math.floor(s / 3600)
  if (s < 172_800) return `${hours} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / 86_400)} d ${hours % 24} h`
}

/** @param {number | null} ms */
const millis = (ms) => (ms === null ? "–" : ms < 10_000 ? `${Math.round(ms)} ms` : span(ms / 1000))

/** @param {number | null} n */
const bytes = (n) => {
  if (n === null) return "–"
  const power = Math.min(Math.floor(Math.log2(Math.max(n, 1)) / 10), 4)
  return `${short.format(n / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`
}

/** Joins the parts that say something. @param {string} separator @param {Array<string>} parts */
const joined = (separator, ...parts) => parts.filter(Boolean).join(separator)

/** @param {string | number} at */
const clock = (at) => {
  const date = new Date(at)
  const today = date.toDateString() === new Date().toDateString()
  const time = date.toLocaleTimeString("en-GB")
  return today ? time : `${date.toLocaleDateString("en-CA")} ${time}`
}

// -- the document

/** @param {ParentNode} within @param {string} selector @returns {any} */
const find = (within, selector) => within.querySelector(selector)

/** @param {Element} node @param {string} text */
const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text
}

/** @param {HTMLElement | SVGElement} node @param {string} tone */
const tint = (node, tone) => {
  if (node.dataset["tone"] !== tone) node.dataset["tone"] = tone
}

/** @param {string} tag @param {string} text @param {string} [style] */
const make = (tag, text, style) => {
  const node = document.createElement(tag)
  node.textContent = text
  if (style) node.className = style
  return node
}

/**
 * Sets many fields at once: each to a text, or to a text and its tone.
 * @param {ParentNode} within @param {Record<string, string | [text: string, tone: string]>} fields
 */
const fill = (within, fields) => {
  for (const [name, field] of Object.entries(fields)) {
    const node = find(within, `[data-field="${name}"]`)
    const [text, tone] = typeof field === "string" ? [field] : field
    setText(node, text)
    if (tone !== undefined) tint(node, tone)
  }
}

/** @param {ParentNode} within @param {string} text */
const reason = (within, text) => {
  const node = find(within, '[data-field="reason"]')
  node.hidden = text === ""
  setText(node, text)
}

/** @type {WeakMap<Element, string>} */
const drawn = new WeakMap()

/**
 * @typedef {{ main: string, sub?: string, tone?: string, lines?: ReadonlyArray<string | false> }} Item
 *   an item of a list: a main text, an optional muted text, and lines below
 */

/**
 * Redraws a list if its content changed. What is false is left out.
 * @param {ParentNode} within @param {string} name @param {ReadonlyArray<Item | false>} items @param {string} empty
 */
const list = (within, name, items, empty) => {
  const node = find(within, `[data-list="${name}"]`)
  const now = JSON.stringify(items)
  if (drawn.get(node) === now) return
  drawn.set(node, now)
  const made = items
    .filter((item) => item !== false)
    .map(({ main, sub, tone, lines = [] }) => {
      const item = make("li", "")
      const head = make("span", main)
      if (tone) tint(head, tone)
      item.append(head)
      if (sub) item.append(" ", make("span", sub, "sub"))
      for (const line of lines) if (line !== false) item.append(make("p", line, "sub"))
      return item
    })
  node.replaceChildren(...(made.length > 0 ? made : [make("li", empty, "sub")]))
}

/** @param {ParentNode} within @param {string} name @param {Array<number>} values @param {number} least @param {string} label */
const curve = (within, name, values, least, label) => {
  const svg = find(within, `[data-curve="${name}"]`)
  const top = Math.max(least, ...values)
  const from = points - values.length
  const path = values.map((y, i) => `${from + i + 1},${(24 - (y / top) * 23).toFixed(1)}`).join("L")
  if (values.length > 1) {
    find(svg, ".line").setAttribute("d", `M${path}`)
    find(svg, ".area").setAttribute("d", `M${from + 1},24L${path}L300,24Z`)
  }
  svg.setAttribute("aria-label", label)
  return svg
}

// -- chains and store

/**
 * Adds figures to a panel. A figure has a field for its value, one for a note beside it (`-note`), and below them either a
 * curve or another field (`-sub`).
 * @param {HTMLElement} panel @param {Record<string, string>} titles the title of each field
 */
const addFigures = (panel, titles) => {
  for (const [field, title] of Object.entries(titles)) {
    const figure = find(find(document, "#figure").content.cloneNode(true), "div")
    const [value, note] = figure.querySelectorAll("span")
    const [sub, svg] = [find(figure, "dd.sub"), find(figure, "svg")]
    const isCurve = field === "lag" || field === "rate"
    figure.className = isCurve ? "curve" : field
    find(figure, "dt").textContent = title
    value.dataset.field = field
    note.dataset.field = `${field}-note`
    if (isCurve) svg.dataset.curve = field
    else {
      svg.remove()
      sub.dataset.field = `${field}-sub`
    }
    find(panel, ".figures").append(figure)
  }
}

addFigures(find(document, ".store"), {
  version: "Version",
  breaker: "Breaker",
  size: "Size",
  persistence: "Persistence",
})

/** @type {Record<string, string>} */
const tones = {
  live: "good",
  idle: "good",
  "catching-up": "busy",
  elsewhere: "",
  connecting: "warn",
  superseded: "warn",
  paused: "bad",
  "store-unavailable": "bad",
  halted: "bad",
}

/**
 * The fields of a breaker.
 * @param {{ state: string, failures: number, next_try_in_ms?: number }} breaker
 * @returns {{ "breaker": [string, string], "breaker-sub": string }}
 */
const breakerFields = ({ state, failures, next_try_in_ms: next }) => {
  const failed = failures === 0 ? "" : plural(failures, "failure")
  const waiting = next === undefined ? failed : `next try in ${Math.ceil(next / 1000)} s`
  return {
    breaker: [state, state !== "closed" ? "bad" : failures > 0 ? "warn" : ""],
    "breaker-sub": state === "half-open" ? `trying, ${plural(failures, "failure")}` : waiting,
  }
}

/** Where the store is, compared with the chain. @param {Chain} chain @param {boolean} isConnected */
const position = ({ head, target, stored, behind }, isConnected) => {
  if (stored === null) return ""
  if (behind > 0) return `${count(behind)} behind`
  if (!isConnected) return "at the last head"
  return target === head ? "at the head" : "at the target"
}

/** Merges consecutive equal failures into one. @param {Chain["failures"]} failures */
const folded = (failures) => {
  /** @type {Array<{ type: string, text: string, last: string, first: string, times: number }>} */
  const groups = []
  for (const { at, type, text } of failures) {
    const group = groups.at(-1)
    if (group && group.type === type && group.text === text) {
      group.first = at
      group.times++
    } else groups.push({ type, text, last: at, first: at, times: 1 })
  }
  return groups.slice(0, 5)
}

/**
 * @typedef {{ at: number, published: number, replica: string | null }} Before
 * @type {Map<string, { node: HTMLElement, curves: Curves, before: Before | undefined }>}
 */
const chains = new Map()
/** The curves at the time of the connection. @type {Record<string, Curves>} */
let past = {}

/** @param {Chain} chain @param {boolean} open */
const addChain = (chain, open) => {
  const node = find(find(document, "#chain").content.cloneNode(true), ".chain")
  addFigures(node, {
    head: "Head",
    stored: "Stored",
    final: "Final",
    lag: "Lag",
    rate: "Logs/s",
    p50: "Latency",
    breaker: "Breaker",
    endpoint: "Endpoint",
  })
  const details = find(node, ".details")
  const button = find(node, "button")
  node.setAttribute("aria-label", chain.name)
  details.id = `details-${chain.id}`
  button.setAttribute("aria-controls", details.id)
  const show = (/** @type {boolean} */ open) => {
    button.setAttribute("aria-expanded", String(open))
    details.hidden = !open
  }
  button.addEventListener("click", () => show(details.hidden))
  show(open)
  find(document, "#chains").append(node)
  const added = { node, curves: past[chain.name] ?? { lag_s: [], logs_per_s: [] }, before: undefined }
  chains.set(chain.name, added)
  return added
}

/** @param {HTMLElement} node @param {Chain} chain @param {Curves} curves */
const drawCurves = (node, chain, { lag_s: lag, logs_per_s: rate }) => {
  // The current value may be newer than the last point of the curve.
  const peakLag = Math.max(chain.lag_s, ...lag)
  const peakRate = Math.max(Math.round(chain.logs.per_second), ...rate)
  const blockTime = chain.block_time_ms / 1000
  const lagCurve = curve(
    node,
    "lag",
    lag,
    Math.max(4 * blockTime, 5),
    `Lag in 5 minutes, at most ${span(peakLag)}`,
  )
  tint(lagCurve, chain.ready ? "" : "bad")
  curve(node, "rate", rate, 1, `Logs a second in 5 minutes, at most ${count(peakRate)}`)
  fill(node, {
    lag: chain.phase === "elsewhere" ? "–" : span(chain.lag_s),
    "lag-note": chain.behind > 0 ? plural(chain.behind, "block") : `peak ${span(peakLag)}`,
    rate:
      chain.logs.per_second < 10
        ? short.format(chain.logs.per_second)
        : count(Math.round(chain.logs.per_second)),
    "rate-note": `peak ${count(peakRate)}`,
  })
}

/** @param {Chain["endpoints"][number]} endpoint @returns {Item} */
const endpointItem = ({ name, in_use, heads, connects, breaker, limits, rate, ...endpoint }) => {
  const { connected_for_s: connected, audit_mismatches: mismatches } = endpoint
  const connection = in_use ? "in use" : "standby"
  const disconnection = connects === 0 ? "never connected" : "not connected"
  return {
    main: name,
    sub: joined(
      ", ",
      connected === null ? disconnection : connection,
      connects > 1 ? `connected ${count(connects)} times` : "",
    ),
    tone: connected === null && breaker.failures > 0 ? "bad" : "",
    lines: [
      breaker.failures > 0 && `${breaker.state}, ${plural(breaker.failures, "failure")}`,
      mismatches > 0 && plural(mismatches, "audit mismatch", "audit mismatches"),
      // The limits of an endpoint that refuses subscriptions already include this text.
      in_use && heads === "polled" && "heads are polled",
      ...limits.filter((limit) => limit !== "heads are polled"),
      rate !== null && `rate limit ${short.format(rate)} calls/s`,
    ],
  }
}

/** @param {Chain} chain @returns {ReadonlyArray<Item | false>} */
const streamItems = ({ audit, logs, stream }) => [
  stream !== null && { main: plural(stream.entries, "entry", "entries"), sub: "kept" },
  { main: count(logs.published), sub: "published" },
  { main: count(logs.removed), sub: "removed" },
  logs.deduplicated > 0 && { main: count(logs.deduplicated), sub: "already stored" },
  audit.missing > 0 && { main: count(audit.missing), sub: "missing, added by audit", tone: "warn" },
  audit.extra > 0 && { main: count(audit.extra), sub: "extra, removed by audit", tone: "warn" },
  audit.unaudited > 0 && { main: plural(audit.unaudited, "final block"), sub: "not audited" },
  ...(stream?.groups ?? []).map(({ name, lag, pending, missed }) => ({
    main: name,
    sub: "group",
    tone: missed > 0 ? "bad" : "",
    lines: [
      `${lag === null ? "unknown" : count(lag)} to read, ${count(pending)} pending`,
      missed > 0 && `${count(missed)} missed: trimmed before they were read`,
    ],
  })),
]

/** @param {HTMLElement} node @param {Chain} chain */
const drawDetails = (node, chain) => {
  const { endpoints, failures, reorgs } = chain
  list(node, "endpoints", endpoints.map(endpointItem), "none")
  list(node, "stream", streamItems(chain), "")
  const latestReorgs = reorgs.last.slice(0, 5).map(({ at, depth, from }) => ({
    main: clock(at),
    sub: `${plural(depth, "block")} from ${count(from)} down`,
  }))
  list(node, "reorgs", latestReorgs, "none since start")
  const heading =
    reorgs.count > 0 ? `Reorgs: ${count(reorgs.count)}, deepest ${count(reorgs.deepest)}` : "Reorgs"
  setText(find(node, '[data-list="reorgs"]').previousElementSibling, heading)
  const errors = folded(failures).map(({ type, text, first, last, times }) => ({
    main: clock(last),
    sub: `${type.replaceAll("_", " ")}${times > 1 ? `, ${times} times since ${clock(first)}` : ""}`,
    lines: [text],
  }))
  list(node, "errors", errors, "none since start")
}

/** Where a chain is followed, in a fleet. @param {Chain} chain @param {Report["fleet"]} fleet */
const followerOf = ({ replica }, fleet) => {
  if (fleet === null) return ""
  if (replica === null) return "followed by no replica"
  return replica === fleet.replica ? "on this replica" : `on ${replica}`
}

/** @param {Chain} chain @param {Report} report @param {boolean} open */
const drawChain = (chain, { at, fleet }, open) => {
  const now = Date.parse(at)
  const known = chains.get(chain.name) ?? addChain(chain, open)
  const { node, curves, before } = known
  const { published } = chain.logs
  const isKnown = chain.phase !== "elsewhere"
  known.before = isKnown ? { at: now, published, replica: chain.replica } : undefined
  // Each replica counts what it has published itself.
  if (before && isKnown && now > before.at && chain.replica === before.replica) {
    curves.lag_s.push(chain.lag_s)
    const rate = ((published - before.published) * 1000) / (now - before.at)
    curves.logs_per_s.push(Math.max(Math.round(rate), 0))
  }
  for (const series of [curves.lag_s, curves.logs_per_s]) if (series.length > points) series.shift()
  const inUse = chain.endpoints.find(({ in_use }) => in_use)
  const connected = inUse?.connected_for_s ?? null
  const standby = chain.endpoints.filter((one) => !one.in_use && one.connected_for_s !== null).length
  const { head, stored, final } = chain
  fill(node, {
    name: chain.name,
    phase: [chain.phase.replace("-", " "), tones[chain.phase] ?? ""],
    since: `for ${span(Math.max(now - Date.parse(chain.since), 0) / 1000)}`,
    replica: followerOf(chain, fleet),
    head: count(head),
    "head-sub": head === null ? "" : `${span(chain.head_age_s)} ago`,
    stored: count(stored),
    "stored-sub": position(chain, connected !== null),
    final: count(final),
    "final-sub": final === null || stored === null ? "" : `${count(stored - final)} below`,
    p50: millis(chain.latency_ms.p50),
    "p50-note": "p50",
    "p50-sub": `${millis(chain.latency_ms.p99)} p99`,
    ...breakerFields((inUse ?? chain.endpoints[0])?.breaker ?? { state: "closed", failures: 0 }),
    endpoint: (inUse ?? chain.endpoints[0])?.name ?? "–",
    "endpoint-sub": joined(
      ", ",
      connected === null ? "not connected" : `for ${span(connected)}`,
      standby > 0 ? `${standby} standby` : "",
    ),
  })
  node.classList.toggle("unready", !chain.ready)
  reason(node, chain.reasons.join("; "))
  drawCurves(node, chain, curves)
  drawDetails(node, chain)
}

/** @param {Report} report */
const drawFleet = ({ fleet, chains }) => {
  const panel = find(document, ".fleet")
  panel.hidden = fleet === null
  setText(find(document, "#tail-title"), fleet === null ? "Latest entries" : "Latest entries of this replica")
  if (fleet === null) return
  fill(panel, {
    state: fleet.is_member ? ["member", "good"] : ["not a member", "bad"],
    description: `${fleet.name}, ${plural(fleet.members.length, "replica")}`,
  })
  const replicas = [...new Set([...fleet.members, ...Object.values(fleet.chains)])].toSorted()
  const items = replicas.map((replica) => {
    const share = chains.filter((chain) => chain.replica === replica).length
    return {
      main: replica,
      sub: joined(", ", replica === fleet.replica ? "this replica" : "", plural(share, "chain")),
    }
  })
  list(panel, "members", items, "no replica is a member")
  panel.classList.toggle("unready", !fleet.is_member)
  reason(panel, fleet.is_member ? "" : (fleet.error ?? "this replica has not joined yet"))
}

/** @param {Report} report */
const drawStore = ({ store, chains, fleet }) => {
  const panel = find(document, ".store")
  const own = chains.filter(({ replica }) => fleet === null || replica === fleet.replica)
  const bad = store.breaker.failures > 0 || own.some(({ phase }) => phase === "store-unavailable")
  const [last] = own.flatMap(({ failures }) => failures.filter(({ type }) => type === "store").slice(0, 1))
  fill(panel, {
    state: bad ? ["not writable", "bad"] : ["writable", "good"],
    description: store.description,
    version: store.version ?? "–",
    ...breakerFields(store.breaker),
    size: bytes(store.bytes),
    "size-sub": store.limit === null ? "" : store.limit === 0 ? "no limit" : `of ${bytes(store.limit)}`,
    persistence: store.persistence ?? "–",
    "persistence-sub": [
      store.eviction_policy === null ? "" : `maxmemory-policy ${store.eviction_policy}`,
      store.eviction_unsafe ? "bad" : "",
    ],
  })
  panel.classList.toggle("unready", bad)
  reason(panel, bad && last ? last.text : "")
  panel.hidden = false
  return bad
}

/** @param {string} colour */
const icon = (colour) =>
  `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6" fill="${colour}"/></svg>`)}`

/** @param {Report} report @param {boolean} storeDown */
const drawVerdict = (report, storeDown) => {
  const unready = report.chains.filter(({ ready }) => !ready).map(({ name }) => name)
  const all = report.chains.length
  const some = all > 1 && unready.length < all ? `: ${unready.join(", ")}` : ""
  const ready = all === 1 ? `${report.chains[0]?.name} is ready` : `${all} chains, all ready`
  const isOut = report.fleet !== null && !report.fleet.is_member
  const verdict = joined(
    "; ",
    storeDown ? "The store is not writable" : "",
    isOut ? "This replica is not a member of the fleet" : "",
    unready.length > 0
      ? `${all === 1 ? unready[0] : `${unready.length} of ${all} chains`} not ready${some}`
      : ready,
  )
  const good = unready.length === 0 && !storeDown && !isOut
  setText(find(document, "#verdict"), verdict)
  document.title = good ? "Event Ingestor" : `(!) ${verdict}`
  document.body.classList.toggle("good", good)
  document.body.classList.toggle("bad", !good)
  const link = find(document, 'link[rel="icon"]')
  const href = icon(good ? "#2f9e66" : "#d93a31")
  if (link.href !== href) link.href = href
  setText(find(document, "#process"), `event-ingestor ${report.version}, up ${span(report.uptime_s)}`)
}

/** @param {Report} report */
const drawStatus = (report) => {
  const roomy = report.chains.length <= fewChains && innerWidth > 700
  for (const chain of report.chains) drawChain(chain, report, roomy || !chain.ready)
  // The configuration may have changed in a restart.
  for (const [name, { node }] of chains) {
    if (report.chains.some((chain) => chain.name === name)) continue
    node.remove()
    chains.delete(name)
  }
  drawFleet(report)
  drawVerdict(report, drawStore(report))
}

// -- latest entries

/** Newest first. @type {Array<Entry>} */
let entries = []
/** @type {Map<string, number>} */
const written = new Map()
let missed = 0
/** Entries received while the list is paused; `undefined` while it is not. @type {number | undefined} */
let paused
const filter = find(document, "#filter")
const rows = find(document, ".tail tbody")

/** @param {Entry} entry */
const isWanted = ({ text }) => {
  const words = filter.value.toLowerCase().split(/\s+/)
  return words.every((/** @type {string} */ word) => text.includes(word))
}

/** @param {Entry} entry */
const drawRow = ({ chain, row }) => {
  const line = make("tr", "", row.removed ? "removed" : "")
  const sign = make("td", row.removed ? "−" : "+", "sign")
  sign.append(make("span", row.removed ? " removed" : " added", "hidden"))
  const topic = make("td", row.event ?? row.topics[0] ?? "–", "topic")
  if (row.event !== undefined) topic.title = row.event
  line.append(
    sign,
    make("td", clock(row.timestamp * 1000).slice(-8), "time"),
    make("td", chain, "chain-name"),
    make("td", count(row.block_number), "block"),
    make("td", count(row.log_index), "log"),
    make("td", row.contract, "contract"),
    topic,
    make("td", row.tx_hash, "tx"),
    make("td", bytes(row.data_bytes), "data"),
  )
  return line
}

const countTail = () => {
  const kept = `the latest ${plural(entries.length, "entry", "entries")}`
  const text = joined(
    "; ",
    paused === undefined ? "" : `paused, ${count(paused)} new`,
    filter.value === "" ? "" : `the latest ${count(rows.childElementCount)} that match`,
    missed > 0 ? `${count(missed)} more not shown` : "",
  )
  setText(find(document, "#tail-count"), text)
  const empty =
    entries.length === 0 ? "No entries written since the process started." : `No match in ${kept}.`
  setText(find(document, "#tail-empty"), rows.childElementCount === 0 ? empty : "")
}

const drawTail = () => {
  rows.replaceChildren(...entries.filter(isWanted).slice(0, shownEntries).map(drawRow))
  countTail()
}

/** @param {Record<string, { seq: number, rows: Array<Row> }>} news */
const addEntries = (news) => {
  /** @type {Array<Entry>} */
  const fresh = []
  for (const [chain, { seq, rows }] of Object.entries(news)) {
    const before = written.get(chain)
    if (before !== undefined) missed += seq - before - rows.length
    written.set(chain, seq)
    for (const row of rows.toReversed()) {
      const { block_number, block_hash, contract, topics, tx_hash, data, removed, event = "" } = row
      const change = removed ? "removed" : "added"
      const text = [chain, block_number, block_hash, contract, ...topics, tx_hash, data, event, change]
      fresh.push({ chain, row, text: text.join(" ").toLowerCase() })
    }
  }
  entries = [...fresh, ...entries].slice(0, keptEntries)
  if (paused !== undefined) paused += fresh.length
  else {
    rows.prepend(...fresh.filter(isWanted).slice(0, shownEntries).map(drawRow))
    while (rows.childElementCount > shownEntries) rows.lastElementChild.remove()
  }
  countTail()
}

const pause = find(document, "#pause")
/** Pauses or resumes the list. @param {boolean} isPaused */
const setPaused = (isPaused) => {
  paused = isPaused ? 0 : undefined
  pause.setAttribute("aria-pressed", String(isPaused))
  if (isPaused) countTail()
  else drawTail()
}
pause.addEventListener("click", () => setPaused(paused === undefined))
filter.addEventListener("input", drawTail)
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target === filter) return
  event.preventDefault()
  filter.focus()
})

// -- the connection

const address = new URL("events", location.origin + location.pathname)
let receivedAt = Date.now()
/** Why the connection failed, if known. */
let why = ""

const drawLink = () => {
  const lost = Date.now() - receivedAt > eventTimeout
  const link = find(document, "#link")
  const banner = find(document, "#banner")
  link.dataset["state"] = lost ? "lost" : "live"
  setText(link, lost ? "not live" : "live")
  document.body.classList.toggle("stale", lost)
  banner.hidden = !lost
  // Once per disconnection: a repeated alert would disturb screen readers.
  if (lost && banner.textContent === "") {
    document.body.classList.remove("good", "bad")
    document.title = "(?) Event Ingestor"
    setText(find(document, "#verdict"), "Disconnected")
    setText(
      banner,
      `No events since ${clock(receivedAt)}${why}. The page shows the state at that time. Reconnecting …`,
    )
  }
  if (!lost) setText(banner, "")
}

const connect = () => {
  const source = new EventSource(address)
  /** @param {(data: any) => void} show */
  const on =
    (show) =>
    (/** @type {MessageEvent<string>} */ { data }) => {
      receivedAt = Date.now()
      why = ""
      show(JSON.parse(data))
      drawLink()
    }
  source.addEventListener(
    "history",
    on(({ chains: curves }) => {
      entries = []
      written.clear()
      missed = 0
      if (paused !== undefined) setPaused(false)
      rows.replaceChildren()
      find(document, ".tail").hidden = false
      past = curves
      for (const [name, chain] of chains)
        Object.assign(chain, { curves: past[name] ?? chain.curves, before: undefined })
    }),
  )
  source.addEventListener("status", on(drawStatus))
  source.addEventListener("entries", on(addEntries))
  source.addEventListener("error", async () => {
    // The browser does not reconnect by itself after a response that is not an event stream.
    if (source.readyState !== EventSource.CLOSED) return
    const status = await fetch(address, { method: "HEAD" }).then(
      (response) => response.status,
      () => 0,
    )
    why =
      status === 401
        ? ": token required, reload the page"
        : status === 503
          ? ": the limit of ten open pages is reached"
          : ""
    setText(find(document, "#banner"), "")
    setTimeout(connect, 3000)
  })
}

connect()
setInterval(drawLink, 1000)
