/** Whether the streams fit into the memory of Redis: entries × bytes per entry, compared with the usable memory. Pure. */
import type { Settings } from "../config/AppConfig.ts"
import { noLimit, pinnedBy } from "../store/Retention.ts"
import { about, ok, warning } from "./Finding.ts"
import type { Finding } from "./Finding.ts"
import { grouped } from "./Output.ts"
import type { Info, Stats } from "../store/StoreAdmin.ts"

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

/** The bytes of one more entry in every chain, and how they are known. */
const entrySizes = (chains: Settings["chains"], streams: ReadonlyArray<Stream>, inCluster: boolean) => {
  const measured = streams.flatMap(({ chain, bytes, entries }) =>
    bytes !== undefined && entries >= minSampleEntries ? [{ chain, bytes: bytes / entries }] : [],
  )
  // The limit is that of one master. In a cluster, a master must hold at least one chain; the slots decide which.
  const together = (estimate: number) => {
    const each = chains.map(({ name }) => measured.find(({ chain }) => chain === name)?.bytes ?? estimate)
    return inCluster ? Math.max(...each) : each.reduce((sum, one) => sum + one, 0)
  }
  const list = measured.map(({ chain, bytes }) => `${chain} ${Math.round(bytes)}`).join(", ")
  const all = measured.length === chains.length
  const some = measured.length === 0 ? "" : `, measured ${list} bytes`
  return {
    least: together(entryBytes.least),
    most: together(entryBytes.most),
    basis: all ? `measured ${list} bytes` : `0.6 to 1.7 kB each${some}`,
  }
}

/**
 * Whether the streams fit at their maximum length, and at their backlog where a reader is pinned.
 *
 * @param now unix seconds
 */
export const sizes = (
  info: Info,
  { chains, retention, store }: Pick<Settings, "chains" | "store" | "retention">,
  streams: ReadonlyArray<Stream>,
  now: number,
): ReadonlyArray<Finding> => {
  if (store._tag === "Sqlite") return []
  const { backlog, maxLength } = retention
  const room = info.limit ? info.limit * usable : undefined
  const inCluster = store.mode === "cluster"
  const { least, most, basis } = entrySizes(chains, streams, inCluster)
  const of = inCluster ? "each chain" : `${chains.length} chain${chains.length === 1 ? "" : "s"}`
  const fitting = (room: number) => grouped(Math.floor(room / most))

  const findingFor = (subject: string, entries: number, setting: string, above: string): Finding => {
    const needed = between(size(entries * least), size(entries * most))
    const detail = `${needed} for ${of} of ${grouped(entries)} entries (${basis})`
    if (room === undefined || entries * most <= room) return about(subject, ok(detail))
    const fix = `raise maxmemory to ${size((entries * most) / usable)} or lower ${setting} to ${fitting(room)}`
    return about(subject, warning(`${detail}, and 80 % of maxmemory is ${size(room)}${above}`, fix))
  }

  if (maxLength === 0) {
    const detail = "STREAM_MAXLEN is 0: streams grow without end"
    if (room === undefined) return [about("store size", ok(detail))]
    const limited = `${detail}, and maxmemory is ${size(info.limit!)}`
    return [about("store size", warning(limited, `set STREAM_MAXLEN to ${fitting(room)}`))]
  }
  const findings = [findingFor("store size", maxLength, "STREAM_MAXLEN", "")]
  const readers = streams.flatMap((stream) => stream.readers)
  const pinned = pinnedBy(retention, readers, now)
  if (pinned === undefined) return findings
  const above = ": publishing pauses there, before STREAM_BACKLOG is reached"
  findings.push(findingFor("store backlog", backlog, "STREAM_BACKLOG", above))
  if (!info.limit) {
    const { detail, fix } = noLimit(info.limit, pinned, retention)
    findings.push(about("store backlog", warning(detail, fix)))
  }
  return findings
}
