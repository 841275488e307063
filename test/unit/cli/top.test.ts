/** The screen of `top`. */
import { assert, describe, it } from "@effect/vitest"
import { parseAddress } from "../../../src/cli/RunningService.ts"
import type { Status } from "../../../src/cli/RunningService.ts"
import { screenOf } from "../../../src/cli/top.ts"

const chain = (name: string, reasons: ReadonlyArray<string> = []): Status["chains"][number] => ({
  name,
  replica: null,
  reasons,
  phase: reasons.length > 0 ? "catching-up" : "live",
  store_breaker: { state: "closed" },
  head: 23_456_789,
  stored: 23_456_789,
  lag_s: 0.4,
  logs: { per_second: 123.4 },
  endpoints: [
    { name: "publicnode.com", in_use: false },
    { name: "drpc.org", in_use: true },
  ],
})

const statusOf = (chains: Status["chains"], fleet: Status["fleet"] = null): Status => ({
  version: "1.2.3",
  uptime_s: 7300,
  fleet,
  store: { description: "redis 127.0.0.1:6379 events:*" },
  chains,
})

const screen = (status: Status, columns = 150, rows = 24) =>
  screenOf({ status, failure: undefined }, "http://127.0.0.1:9090", { columns, rows })

describe("the screen of top", () => {
  it("has a line for the service and one for each chain, with the endpoint in use and the state of Redis", () => {
    assert.deepStrictEqual(screen(statusOf([chain("base")])), [
      "event-ingestor 1.2.3 at http://127.0.0.1:9090  up 2 h  redis 127.0.0.1:6379 events:*",
      "chain      head    stored     lag  logs/s  state        endpoint  redis",
      "base   23456789  23456789     0 s     123  live         drpc.org  ok",
    ])
  })

  it("names the replica that follows a chain of a fleet, and why a chain is not ready", () => {
    const fleet = { name: "main", error: null, members: ["a", "b"] }
    const followed = { ...chain("base", ["12 blocks behind", "no head for 70 s"]), replica: "a" }
    const [summary, titles, ...rows] = screen(statusOf([followed, chain("bsc")], fleet))
    assert.match(summary!, /fleet main: 2 members$/)
    assert.match(titles!, /^chain +followed by +head .* redis +not ready because$/)
    assert.match(rows[0]!, /^base +a +.* catching up +drpc.org +ok +12 blocks behind; no head for 70 s$/)
    assert.match(rows[1]!, /^bsc +- .* live +drpc.org +ok$/)
  })

  it("fits every terminal: no line exceeds the width, and chains that do not fit are counted", () => {
    const status = statusOf(Array.from({ length: 12 }, (_, i) => chain(`chain-${i}`, ["x".repeat(300)])))
    for (let columns = 8; columns < 200; columns += 7)
      for (let rows = 3; rows < 20; rows++) {
        const lines = screen(status, columns, rows)
        assert.isAtMost(lines.length, rows)
        for (const line of lines) assert.isAtMost(line.length, columns)
      }
    assert.strictEqual(screen(status, 100, 10).at(-1), "… 5 more")
    assert.strictEqual(screen(status, 100, 14).length, 14)
  })
})

describe("the address of a service", () => {
  it("may lack http://, and is nothing else than an address", () => {
    assert.strictEqual(parseAddress("localhost:9090")?.href, "http://localhost:9090/")
    assert.strictEqual(parseAddress("https://example.com/ingestor")?.href, "https://example.com/ingestor")
    for (const wrong of ["", "http://", "a b", "http://host?x=1", "http://host#x"])
      assert.isUndefined(parseAddress(wrong), wrong)
  })
})
