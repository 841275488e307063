/** The command line: its commands, and the exit code of each kind of failure. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Layer } from "effect"
import { CliError, CliOutput, Command } from "effect/cli"
import { version } from "../Version.ts"
import { chains } from "./chains.ts"
import { check } from "./check.ts"
import { demo } from "./demo.ts"
import { withExamples } from "./Flags.ts"
import { exitCode, runMain } from "./Process.ts"
import { reset } from "./reset.ts"
import { run, serve } from "./run.ts"
import { status } from "./status.ts"
import { tail } from "./tail.ts"
import { verify } from "./verify.ts"

const root = Command.make("event-ingestor", {}, () => serve).pipe(
  Command.withDescription("Every event log of many EVM chains in a durable stream, in order, exactly once"),
  withExamples({
    "CHAINS=base event-ingestor": "Follow Base, through its public endpoints",
    "CHAINS=devnet DEVNET_CHAIN_ID=31337 DEVNET_WS_URL=ws://127.0.0.1:8545 event-ingestor":
      "Follow a chain that is not built in",
    "event-ingestor check": "Check the configuration first",
  }),
  Command.withSubcommands([run, check, status, verify, tail, reset, chains, demo]),
)

/** Prints a usage error as one line that points to `--help`. */
const usage = (command: string, detail: string) =>
  Console.error(
    `${command}: ${detail.replace(/\s*Did you mean this\?\s*(\S+)/g, ", did you mean $1?").replace(/\s*\n\s*/g, " ")}; see --help`,
  )

/** Prints the help only for `--help`, not with each usage error. */
const presenter = CliOutput.layerPresenter({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? usage(event.commandPath.join(" "), event.errors.map(({ message }) => message).join("; "))
      : CliOutput.defaultPresenter.present(event),
})

const fail = (code: number) => Effect.sync(() => process.exit(code))

export const main = (args: ReadonlyArray<string>): void =>
  Command.runWith(root, { version })(args).pipe(
    Effect.catchIf(CliError.isCliError, (error) =>
      fail(error._tag === "ShowHelp" && error.errors.length === 0 ? exitCode.ok : exitCode.usage),
    ),
    Effect.catchTags({
      ConfigProblems: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.config)),
      HttpError: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.config)),
      UsageError: (error) => Effect.andThen(usage("event-ingestor", error.message), fail(exitCode.usage)),
      StoreError: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.unreachable)),
      EndpointError: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.unreachable)),
    }),
    Effect.provide(Layer.merge(NodeServices.layer, presenter)),
    runMain,
  )
