/** Whether the streams fit into the memory of Redis: entries × bytes per entry, compared with the usable memory. Pure. */
import type { Settings } from "../config/AppConfig.ts"
import { noLimit, pinnedBy } from "../store/Retention.ts"
import type { Info, Stats } from "../store/StoreAdmin.ts"
import type { Finding } from "./dialect.ts"
import { grouped } from "./Output.ts"

/**
 * Bytes per entry in Redis, measured with `MEMORY USAGE`: a transfer with three topics and one word of data, and a swap or
 * an order with 32 words.
 */
export const entryBytes = { least: 600, most: 1700 } as const

/** Streams with fewer entries give no reliable average size. */
const minSampleEntries = 1000

/** The share of `maxmemory` up to which publishing to a stream with a pinned reader continues. */
const usable = 0.8

/** The current stream of a chain. */
export interface Stream extends Pick<Stats, "entries" | "bytes" | "readers"> {
  readonly chain: string
}

const size = (bytes: number) => `${(bytes / 1024 ** 3).toFixed(bytes < 1024 ** 3 / 10 ? 2 : 1)} GiB`

const between = (least: string, most: string) => (least === most ? `about ${least}` : `${least} to ${most}`)

export const sizes = (
  info: Info,
  settings: Pick<Settings, "chains" | "store" | "retention">,
  streams: ReadonlyArray<Stream>,
): ReadonlyArray<Finding> => {
  const { chains, retention, store } = settings
  if (store._tag === "Sqlite") return []
  const { backlog, maxLength } = retention
  const room = info.limit ? info.limit * usable : undefined
  const all = chains.map(({ name }) => {
    const stream = streams.find(({ chain }) => chain === name)
    const measured =
      stream?.bytes !== undefined && stream.entries >= minSampleEntries
        ? stream.bytes / stream.entries
        : undefined
    return { name, measured, least: measured ?? entryBytes.least, most: measured ?? entryBytes.most }
  })
  // The limit is that of one master. In a cluster, a master must hold at least one chain; the slots decide which.
  const inCluster = store.mode === "cluster"
  const together = (bytes: "least" | "most") => {
    const each = all.map((chain) => chain[bytes])
    return inCluster ? Math.max(...each) : each.reduce((sum, one) => sum + one, 0)
  }
  const of = inCluster ? "each chain" : `${chains.length} chain${chains.length === 1 ? "" : "s"}`
  const measuredChains = all.filter(({ measured }) => measured !== undefined)
  const measured = measuredChains.map(({ name, most }) => `${name} ${Math.round(most)}`).join(", ")
  const bytes =
    measuredChains.length === all.length
      ? `measured ${measured} bytes`
      : `0.6 to 1.7 kB each${measuredChains.length === 0 ? "" : `, measured ${measured} bytes`}`

  const findingFor = (subject: string, entries: number, setting: string, above: string): Finding => {
    const [least, most] = [entries * together("least"), entries * together("most")]
    const detail = `${between(size(least), size(most))} for ${of} of ${grouped(entries)} entries (${bytes})`
    if (room === undefined || most <= room) return { subject, level: "ok", detail }
    const fits = Math.floor(room / together("most"))
    return {
      subject,
      level: "warning",
      detail: `${detail}, and 80 % of maxmemory is ${size(room)}${above}`,
      fix: `raise maxmemory to ${size(most / usable)} or lower ${setting} to ${grouped(fits)}`,
    }
  }

  const findings: Array<Finding> = []
  if (maxLength === 0) {
    const detail = "STREAM_MAXLEN is 0: streams grow without end"
    findings.push(
      room === undefined
        ? { subject: "store size", level: "ok", detail }
        : {
            subject: "store size",
            level: "warning",
            detail: `${detail}, and maxmemory is ${size(info.limit!)}`,
            fix: `set STREAM_MAXLEN to ${grouped(Math.floor(room / together("most")))}`,
          },
    )
    return findings
  }
  findings.push(findingFor("store size", maxLength, "STREAM_MAXLEN", ""))
  const pinned = pinnedBy(
    retention,
    streams.flatMap(({ readers }) => readers),
    Date.now() / 1000,
  )
  if (pinned === undefined) return findings
  const above = ": publishing pauses there, before STREAM_BACKLOG is reached"
  findings.push(findingFor("store backlog", backlog, "STREAM_BACKLOG", above))
  if (!info.limit)
    findings.push({ subject: "store backlog", level: "warning", ...noLimit(info.limit, pinned, retention) })
  return findings
}
