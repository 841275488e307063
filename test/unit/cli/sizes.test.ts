/** What `check` reports about the memory that streams need. */
import { assert, describe, it } from "@effect/vitest"
import { sizes } from "../../../src/cli/sizes.ts"
import type { Stream } from "../../../src/cli/sizes.ts"
import type { RedisConfig } from "../../../src/config/AppConfig.ts"
import { keeping } from "../../support/ingestor.ts"
import type { Info } from "../../../src/store/StoreAdmin.ts"

const now = 1_700_000_000

const stream = (chain: string, entries: number, bytes: number | undefined): Stream => ({
  chain,
  entries,
  bytes,
  readers: [],
})

const lines = (
  {
    limit,
    maxLength,
    mode = "standalone",
  }: Partial<RedisConfig> & {
    readonly limit: number
    readonly maxLength: number
  },
  streams: ReadonlyArray<Stream>,
  groups: ReadonlyArray<string> = [],
) => {
  const chains = [{ name: "a" }, { name: "b" }]
  const settings = { chains, store: { _tag: "Redis", mode }, retention: keeping(maxLength, groups) } as never
  return sizes({ limit } as Info, settings, streams, now).map(
    ({ subject, level, detail, fix = "" }) => `${level} ${subject}: ${detail} → ${fix}`,
  )
}

const gigabytes = 1024 ** 3

describe("the memory of streams", () => {
  it("is estimated from typical entries until a stream has enough to measure", () => {
    assert.deepStrictEqual(
      lines({ limit: 8 * gigabytes, maxLength: 1_000_000 }, [stream("a", 999, 999_000)]),
      ["ok store size: 1.1 GiB to 3.2 GiB for 2 chains of 1 000 000 entries (0.6 to 1.7 kB each) → "],
    )
    assert.deepStrictEqual(
      lines({ limit: 8 * gigabytes, maxLength: 1_000_000 }, [
        stream("a", 1000, 1_000_000),
        stream("b", 2000, 1_000_000),
      ]),
      ["ok store size: about 1.4 GiB for 2 chains of 1 000 000 entries (measured a 1000, b 500 bytes) → "],
    )
  })

  it("that exceeds maxmemory is a warning with the length that fits", () => {
    const [line] = lines({ limit: gigabytes, maxLength: 1_000_000 }, [])
    assert.match(line!, /^warning store size: .*, and 80 % of maxmemory is 0\.8 GiB → /)
    assert.match(line!, /→ raise maxmemory to 4\.0 GiB or lower STREAM_MAXLEN to 252 645$/)
    const [endless] = lines({ limit: gigabytes, maxLength: 0 }, [])
    assert.match(endless!, /^warning .*grow without end.* → set STREAM_MAXLEN to 252 645$/)
  })

  it("of one master of a cluster is that of its largest stream", () => {
    const [line] = lines({ limit: gigabytes, maxLength: 100_000, mode: "cluster" }, [])
    assert.match(line!, /^ok store size: 0\.06 GiB to 0\.2 GiB for each chain of 100 000 entries/)
  })

  it("includes the backlog where a reader is pinned, and warns without a limit", () => {
    assert.deepStrictEqual(
      lines({ limit: 0, maxLength: 1000 }, [], ["app"]).map((line) => line.split(":")[0]),
      ["ok store size", "ok store backlog", "warning store backlog"],
    )
  })
})
