/** Which chains are followed, by which endpoints, and which of their logs: `CHAINS` and the variables of each chain. */
import { Duration, Effect, Redacted } from "effect"
import {
  defaultChains,
  defaultFinalityDepth,
  defaultPollInterval,
  knownChains,
  variablePrefix,
} from "./Chains.ts"
import * as Codec from "./Codec.ts"
import type { EventAbis } from "../abi/EventAbi.ts"
import type { ChainId, Filter } from "../Domain.ts"
import { unknownChain } from "./UnknownVariables.ts"
import { variable } from "./Variable.ts"
import type { Reader, Section, Values } from "./Variable.ts"

/** A provider of one chain. `name` is what may be shown; the URL often carries a key and never is. */
export interface EndpointConfig {
  readonly name: string
  readonly url: Redacted.Redacted<string>
  /** A built-in public endpoint: it has no key and gets fewer requests. */
  readonly keyless: boolean
}

type Shared = Values<typeof shared>

type Derived = "addresses" | "topics" | "events" | "finalityDepth" | "pollInterval"

export interface ChainConfig extends Omit<Shared, Derived> {
  readonly name: string
  readonly id: ChainId
  /** Endpoints that heads come from, in order of preference: WebSocket ones, or HTTP ones that are polled. */
  readonly endpoints: ReadonlyArray<EndpointConfig>
  /** HTTP endpoints for ranges. */
  readonly rpc: ReadonlyArray<EndpointConfig>
  readonly filter: Filter
  /** The events that logs are decoded by; `undefined`: logs are not decoded. */
  readonly events: EventAbis | undefined
  readonly finalityDepth: number
  /** How often heads are polled where they are. */
  readonly pollInterval: Duration.Duration
}

const address = Codec.hexOf(20, "a contract address")
const topic = Codec.hexOf(32, "a topic")

/** `a,b` lists what topic0 may be; as soon as there is a `|` or an empty place, commas separate positions: `a|b,,c`. */
const topics: Codec.Codec<Filter["topics"]> = Codec.kind(
  "topics: `topic0,topic0` or by position `topic0|topic0,,topic2`",
  (text) => {
    const parts = text.split(",").map((part) => part.trim())
    const byPosition = text.includes("|") || parts.includes("")
    const positions = byPosition ? parts.map((part) => part.split("|")) : [parts]
    const parsed = positions.map((alternatives) =>
      alternatives.length === 1 && alternatives[0] === ""
        ? null
        : alternatives.flatMap((alternative) => topic.parse(alternative.trim()) ?? []),
    )
    const complete = parsed.every((found, i) => found === null || found.length === positions[i]!.length)
    if (!complete || parsed.length > 4) return undefined
    // geth and reth disagree on whether an empty place at the end asks for a topic to be there.
    return parsed.slice(0, parsed.findLastIndex((found) => found !== null) + 1)
  },
)

const chainName = Codec.kind("a chain's name or id", (text) =>
  /^[a-z0-9]+(-[a-z0-9]+)*$/.test(text.toLowerCase()) ? text.toLowerCase() : undefined,
)

const chainsVariable = variable("CHAINS", Codec.list(chainName), {
  default: defaultChains,
  meaning: "names or ids of the chains to follow; `event-ingestor chains` lists the built-in ones",
})

/** Variables of one chain only. */
const own = {
  wsUrl: variable("WS_URL", Codec.list(Codec.urlOf("ws:", "wss:", "http:", "https:")), {
    shownDefault: "public for the four defaults",
    example: "wss://mainnet.example.com/v3/KEY,wss://another.example.org/KEY",
    isSecret: true,
    meaning:
      "endpoint(s) for heads, comma-separated, in order of preference: `ws(s)://`, or `http(s)://`, which is polled",
  }),
  rpcUrl: variable("RPC_URL", Codec.list(Codec.urlOf("http:", "https:")), {
    example: "https://mainnet.example.com/v3/KEY",
    isSecret: true,
    meaning: "HTTP endpoint(s) for backfill and the audit, so that large answers do not delay heads",
  }),
  chainId: variable("CHAIN_ID", Codec.count(1), {
    shownDefault: "built in for known names",
    example: "31337",
    meaning: "the id of a chain that is not built in",
  }),
}

/** Variables of one chain, which without its prefix are the default of all chains. */
const shared = {
  startBlock: variable("START_BLOCK", Codec.orWord("latest", Codec.count()), {
    default: "latest",
    meaning: "where a new journal begins; an existing journal resumes from the store",
  }),
  addresses: variable("ADDRESSES", Codec.list(address), {
    shownDefault: "all",
    example: "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
    meaning: "only logs of these contracts, comma-separated",
  }),
  topics: variable("TOPICS", topics, {
    shownDefault: "all",
    example: "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
    meaning:
      "only logs with these topics: `topic0,topic0`, or by position `topic0|topic0,,topic2`; empty places at the end are ignored",
  }),
  events: variable("EVENTS", Codec.text, {
    shownDefault: "not decoded",
    example: "Transfer(address indexed from, address indexed to, uint256 value)",
    meaning:
      "only logs of these events, and entries get `event` and `args`: signatures separated by `;`, or the path of an ABI in JSON; not with `TOPICS`",
  }),
  confirmations: variable("CONFIRMATIONS", Codec.orWord("finalized", Codec.count()), {
    default: "0",
    meaning: "stay so many blocks behind the head, or `finalized`: then no entry is ever retracted",
  }),
  /** Whether a header's `logsBloom` may prove that a block has no matching log. */
  logsBloom: variable("LOGS_BLOOM", Codec.oneOf("trust", "ignore"), {
    default: "trust",
    meaning:
      "`ignore` where headers have wrong blooms, as Polygon's before its Madhugiri fork of 2025 (PIP-74); answers are then not compared with them",
  }),
  /** Whether the `finalized` tag is requested; `depth` is for nodes whose tag means nothing. */
  finality: variable("FINALITY", Codec.oneOf("tag", "depth"), {
    default: "tag",
    meaning:
      "`depth` ignores the `finalized` tag: some development nodes (Hardhat) call their latest block final",
  }),
  finalityDepth: variable("FINALITY_DEPTH", Codec.count(1), {
    shownDefault: `by chain, else \`${defaultFinalityDepth}\``,
    example: String(defaultFinalityDepth),
    meaning: "blocks until final, where the node has no `finalized` tag",
  }),
  heads: variable("HEADS", Codec.oneOf("subscribe", "poll"), {
    default: "subscribe",
    meaning:
      "`poll` polls sockets for the latest block instead of subscribing to heads; a socket that refuses `eth_subscribe` is polled too",
  }),
  pollInterval: variable("POLL_INTERVAL", Codec.duration, {
    shownDefault: "the block time, at least `1s`",
    example: "12s",
    meaning: "the interval at which heads are polled",
  }),
}

/** The ends of the names of a chain's variables. */
export const chainVariables = [...Object.values(own), ...Object.values(shared)].map(({ name }) => name)

export const sections: ReadonlyArray<Section> = [
  { title: "Chains", variables: [chainsVariable] },
  { title: "Endpoints of a chain", variables: Object.values(own), prefix: "chain" },
  {
    title: "Start, filter and finality of a chain",
    variables: Object.values(shared),
    prefix: "chain or all",
  },
]

const defaultPorts: Readonly<Record<string, string>> = {
  "ws:": "80",
  "wss:": "443",
  "http:": "80",
  "https:": "443",
}

/** The last two labels of the host, or host:port for an address: what an endpoint may be called in public. */
const publicName = (url: URL): string => {
  const labels = url.hostname.split(".")
  const isAddress = url.hostname.startsWith("[") || /^[\d.]+$/.test(url.hostname) || labels.length === 1
  return isAddress ? `${url.hostname}:${url.port || defaultPorts[url.protocol]}` : labels.slice(-2).join(".")
}

/** Names endpoints; `seen` counts the names of all endpoints of a chain, so that each name is unique. */
const named = (
  urls: ReadonlyArray<URL>,
  keyless: boolean,
  seen: Map<string, number>,
): ReadonlyArray<EndpointConfig> =>
  urls.map((url) => {
    const name = publicName(url)
    const times = (seen.get(name) ?? 0) + 1
    seen.set(name, times)
    return { name: times === 1 ? name : `${name}-${times}`, url: Redacted.make(url.href), keyless }
  })

/** Parses the events of a chain, which become its topics. `undefined` without `EVENTS`. */
const readEvents = Effect.fnUntraced(function* (reader: Reader, prefix: string, { events, topics }: Shared) {
  if (events === undefined) return undefined
  const name = `${reader.isSet(`${prefix}EVENTS`) ? prefix : ""}EVENTS`
  if (topics !== undefined) return reader.problem(name, "set either EVENTS or TOPICS: events are topics")
  const { parseEvents } = yield* Effect.promise(() => import("./EventsParser.ts"))
  return yield* Effect.catch(parseEvents(events), (problem) => Effect.succeed(reader.problem(name, problem)))
})

/** Reads a chain, given as its name or id in `CHAINS`. Its id is built in, given there, or in `<NAME>_CHAIN_ID`. */
const readChain = Effect.fnUntraced(function* (reader: Reader, given: string) {
  const number = /^\d+$/.test(given) ? Number(given) : undefined
  const builtIn = knownChains.find(({ name, id }) => (number === undefined ? name === given : id === number))
  const name = builtIn?.name ?? (number === undefined ? given : `chain-${number}`)
  const prefix = `${variablePrefix(name)}_`
  const { chainId, rpcUrl, wsUrl } = yield* reader.all(own, prefix)
  const id = builtIn?.id ?? number ?? chainId
  if (id === undefined && !reader.isSet(`${prefix}CHAIN_ID`))
    reader.problem(`${prefix}CHAIN_ID`, `expected the chain id of ${name}, ${unknownChain(name)}`)
  if (chainId !== undefined && chainId !== id)
    reader.problem(`${prefix}CHAIN_ID`, `expected ${id}, the id of ${name}, got ${chainId}`)
  const publicUrls = (builtIn?.publicEndpoints ?? []).map((url) => new URL(url))
  if (!reader.isSet(`${prefix}WS_URL`) && publicUrls.length === 0)
    reader.problem(
      `${prefix}WS_URL`,
      `expected a WebSocket or HTTP URL of ${name}, which has no public default`,
    )

  const values = yield* reader.all(shared, prefix, yield* reader.all(shared))
  const { addresses, topics, events: _, finalityDepth, pollInterval, ...others } = values
  const events = yield* readEvents(reader, prefix, values)
  const topic0 = events && [[...new Set(events.events.map(({ topic0 }) => topic0))].sort()]
  const names = new Map<string, number>()
  return {
    name,
    id: id ?? 0,
    endpoints: named(wsUrl ?? publicUrls, wsUrl === undefined, names),
    rpc: named(rpcUrl ?? [], false, names),
    filter: { addresses: [...new Set(addresses)].sort(), topics: topic0 ?? topics ?? [] },
    events,
    ...others,
    finalityDepth: finalityDepth ?? builtIn?.finalityDepth ?? defaultFinalityDepth,
    pollInterval: pollInterval ?? Duration.millis(defaultPollInterval(builtIn?.blockTime)),
  } satisfies ChainConfig
})

/** The chains of these variables; what is wrong with them is in the reader's problems. */
export const readChains = Effect.fnUntraced(function* (reader: Reader) {
  const given = yield* reader.get(chainsVariable)
  const chains = yield* Effect.forEach([...new Set(given)], (chain) => readChain(reader, chain))
  for (const [i, chain] of chains.entries()) {
    const other = chains.slice(0, i).find((earlier) => earlier.id === chain.id && chain.id !== 0)
    if (other) reader.problem("CHAINS", `${other.name} and ${chain.name} are both chain ${chain.id}`)
  }
  return chains
})
