/**
 * `demo`: two local devnets with traffic and reorgs, the real ingestor, and at the end a comparison of its store with the
 * nodes.
 */
import { Context, Duration, Effect, Layer, Option, Random, Redacted, References } from "effect"
import { Command, Flag } from "effect/cli"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { variablePrefix } from "../config/Chains.ts"
import { AppConfig, fromVariables, processVariables } from "../config/AppConfig.ts"
import type { ChainConfig, Settings } from "../config/AppConfig.ts"
import * as Anvil from "../demo/Anvil.ts"
import * as Screen from "./Screen.ts"
import * as Traffic from "../demo/Traffic.ts"
import * as WebSocketConnection from "../endpoint/WebSocketConnection.ts"
import type { Connection } from "../endpoint/Connection.ts"
import * as Eth from "../endpoint/Eth.ts"
import { Transport } from "../endpoint/Socket.ts"
import type { ChainStatus } from "../observability/ChainStatus.ts"
import { Status } from "../observability/Status.ts"
import { Entries } from "../store/Entries.ts"
import { StoreAdmin } from "../store/StoreAdmin.ts"
import * as StoreLayer from "../store/StoreLayer.ts"
import { compare, replay } from "./comparison.ts"
import { withExamples } from "./Flags.ts"
import { runtime, telemetry } from "./Layers.ts"
import type { Service } from "./Layers.ts"
import { writeLines } from "./Output.ts"
import { exitCode } from "./Process.ts"

const devnets = [
  { name: "devnet-a", id: 31337, blockTime: 1, logs: 25, reorgs: true },
  { name: "devnet-b", id: 31338, blockTime: 0.5, logs: 40, reorgs: false },
] as const

type Devnet = (typeof devnets)[number]

/** The time between two calls of the contract. */
const callEvery = Duration.millis(250)

const firstReorg = Duration.seconds(8)
const reorgEvery = Duration.seconds(6)
const deepestReorg = 4

/** How long the store may take to reach the nodes' heads once mining has stopped. */
const settleTimeout = Duration.seconds(5)

const connect = (id: number | undefined, name: string, url: string) =>
  WebSocketConnection.connect(
    { id },
    { name, url: Redacted.make(url), keyless: false },
    { requestTimeout: Duration.seconds(10), wsMaxPayload: 256 * 1024 * 1024 },
  ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

/** The configuration of the demo: the user's, with the chains and the store replaced. */
const demoConfig = Effect.fnUntraced(function* (urls: ReadonlyArray<string>) {
  const given = yield* processVariables
  const kept = Object.entries(given).filter(([name]) =>
    /^(REDIS_|OTEL_|HTTP_|METRICS_|LOG_|SHUTDOWN_)/.test(name),
  )
  const directory = mkdtempSync(join(tmpdir(), "event-ingestor-demo-"))
  // On exit, because finalizers do not run after a second Ctrl-C.
  process.on("exit", () => rmSync(directory, { recursive: true, force: true }))
  const variables: Record<string, string | undefined> = {
    LOG_LEVEL: "none",
    ...Object.fromEntries(kept),
    CHAINS: devnets.map(({ name }) => name).join(","),
    START_BLOCK: "0",
    STREAM_PREFIX: "demo",
    STREAM_MAXLEN: "0",
    DATABASE_PATH: join(directory, "events.db"),
  }
  for (const [i, { name, id }] of devnets.entries()) {
    const prefix = variablePrefix(name)
    variables[`${prefix}_CHAIN_ID`] = String(id)
    variables[`${prefix}_WS_URL`] = urls[i]
  }
  const config = yield* fromVariables(variables)
  // Another ingestor may use the default port: any free port is used unless the user sets one.
  const port = variables["HTTP_PORT"] || variables["METRICS_PORT"]
  return port ? config : { ...config, http: { ...config.http, port: 0 } }
})

/** Calls the contract, and on one chain causes a reorg every few seconds. */
const generateTraffic = Effect.fnUntraced(function* (devnet: Devnet, node: Connection) {
  const emitter = yield* Traffic.deploy(node)
  const calls = Traffic.keepCalling(emitter, devnet.logs, callEvery)
  if (!devnet.reorgs) return yield* calls
  const reorgs = Random.nextIntBetween(1, deepestReorg + 1).pipe(
    Effect.flatMap((depth) => Effect.ignore(Traffic.reorg(node, emitter, depth))),
    Effect.andThen(Effect.sleep(reorgEvery)),
    Effect.forever,
    Effect.delay(firstReorg),
  )
  return yield* Effect.raceFirst(calls, reorgs)
})

/** Stops mining after one more block, a new unique head, and waits until the store has it. */
const settle = Effect.fnUntraced(function* (node: Connection, chain: ChainStatus) {
  yield* node.request("evm_setIntervalMining", [0])
  yield* node.request("evm_mine", [])
  const head = yield* Eth.blockNumber(node)
  yield* Effect.suspend(() => Effect.succeed(chain.stored ?? -1)).pipe(
    Effect.delay("50 millis"),
    Effect.repeat({ until: (stored) => stored >= head }),
    Effect.timeoutOption(settleTimeout),
  )
})

const summary = Effect.fnUntraced(function* (
  entries: Entries["Service"],
  chain: ChainConfig,
  node: Connection,
  status: ChainStatus,
) {
  const replayed = yield* replay(entries, chain.id)
  const head = yield* Eth.blockNumber(node)
  const { logs, missing, extra, different } = yield* compare(replayed, node, chain, 0, head)
  const complete =
    missing.length + extra.length + different.length + replayed.faults.length === 0 && status.stored === head
  yield* writeLines([
    `${chain.name}: ${head + 1} blocks, ${logs} logs on the node, ${replayed.entries} entries in the store, ` +
      `${replayed.removed} of them retractions by ${status.reorgs} reorg${status.reorgs === 1 ? "" : "s"}`,
    `  missing ${missing.length}, extra ${extra.length}, different ${different.length}, ` +
      `faults ${replayed.faults.length}, stored up to ${status.stored} of ${head}`,
    `  complete: ${complete ? "yes" : "NO"}`,
  ])
  return complete
})

/** Deletes the demo's streams. */
const resetStreams = Effect.fnUntraced(function* ({ chains }: Settings) {
  const store = yield* StoreAdmin
  for (const { id } of chains) yield* store.reset(id, { from: undefined, filter: "none", delete: true })
})

/** Runs until stopped or for a number of seconds, and sets the exit code by whether every journal is complete. */
const runDemo = (service: Service, seconds: Option.Option<number>) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const nodes = yield* Effect.forEach(devnets, (devnet) =>
        Effect.gen(function* () {
          const anvil = yield* restore(Anvil.start({ chainId: devnet.id, blockTime: devnet.blockTime }))
          return { anvil, connection: yield* restore(connect(devnet.id, devnet.name, anvil.url)) }
        }).pipe(Effect.orDie),
      )
      const config = yield* demoConfig(nodes.map(({ anvil }) => anvil.url))
      const appConfig = Layer.succeed(AppConfig, config)
      const base = Layer.provideMerge(runtime, appConfig)
      // With Redis, streams of an earlier demo may exist.
      yield* restore(
        Effect.scoped(Effect.provide(resetStreams(config), Layer.provide(StoreLayer.layer, base))),
      )
      const context = yield* restore(
        Layer.build(service.pipe(Layer.provide(telemetry), Layer.provideMerge(base))),
      )
      const { chains } = Context.get(context, Status)
      const entries = Context.get(context, Entries)
      const admin = Context.get(context, StoreAdmin)

      const time = Option.isNone(seconds) ? Effect.never : Effect.sleep(seconds.value * 1000)
      yield* writeLines([`following ${devnets.length} devnets into ${admin.description}; Ctrl-C stops`])
      yield* restore(
        Effect.raceAllFirst([
          time,
          Screen.show(chains),
          ...devnets.map((devnet, i) => generateTraffic(devnet, nodes[i]!.connection)),
        ]),
      ).pipe(Effect.exit)
      yield* Effect.forEach(nodes, ({ connection }, i) => settle(connection, chains[i]!), { concurrency: 2 })
      const complete = yield* Effect.forEach(nodes, ({ connection }, i) =>
        summary(entries, config.chains[i]!, connection, chains[i]!),
      )
      // Set here and not returned: after Ctrl-C, the fiber ends as interrupted as soon as it is interruptible.
      if (!complete.every(Boolean)) process.exitCode = exitCode.failed
    }),
  ).pipe(Effect.scoped, Effect.provide(Transport.layerNetwork))

/** Generates traffic on an existing development node. */
const traffic = Effect.fnUntraced(
  function* (url: string) {
    const node = yield* connect(undefined, "the node", url)
    const emitter = yield* Traffic.deploy(node)
    yield* writeLines(["calling the contract; Ctrl-C stops"])
    return yield* Effect.raceFirst(Traffic.keepCalling(emitter, devnets[0].logs, callEvery), node.ended)
  },
  Effect.scoped,
  Effect.provide(Transport.layerNetwork),
)

export const demo = (service: Service) =>
  Command.make(
    "demo",
    {
      seconds: Flag.Finite("seconds").pipe(
        Flag.withDescription("Stop after this many seconds"),
        Flag.filter(
          (n) => n > 0,
          () => "expected a number of seconds above 0",
        ),
        Flag.optional,
      ),
      against: Flag.String("against").pipe(
        Flag.withDescription("Only generate traffic, on the development node at this WebSocket URL"),
        Flag.optional,
      ),
    },
    Effect.fnUntraced(function* ({ seconds, against }) {
      if (Option.isSome(against)) return yield* traffic(against.value)
      return yield* runDemo(service, seconds)
    }),
  ).pipe(
    Command.withDescription(
      "Run two local devnets with reorgs and the real ingestor, and compare them at the end",
    ),
    withExamples({
      "event-ingestor demo": "Run until Ctrl-C",
      "event-ingestor demo --seconds 30": "Run for 30 s; exit code 1 if anything is missing",
      "event-ingestor demo --against ws://127.0.0.1:8545": "Only generate traffic, on your own devnet",
    }),
  )
