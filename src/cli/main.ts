/** The command line: its commands, and the exit code of each kind of failure. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Layer } from "effect"
import { CliError, CliOutput, Command } from "effect/cli"
import { version } from "../Version.ts"
import { chains } from "./chains.ts"
import { check } from "./check.ts"
import { demo } from "./demo.ts"
import { withExamples } from "./Flags.ts"
import type { Service } from "./Layers.ts"
import { exitCode, runMain } from "./Process.ts"
import { reset } from "./reset.ts"
import { run, serve } from "./run.ts"
import { status } from "./status.ts"
import { tail } from "./tail.ts"
import { verify } from "./verify.ts"

const rootOf = (service: Service) =>
  Command.make("event-ingestor", {}, () => serve(service)).pipe(
    Command.withDescription("Every event log of many EVM chains in a durable stream, in order, exactly once"),
    withExamples({
      "CHAINS=base event-ingestor": "Follow Base, through its public endpoints",
      "CHAINS=devnet DEVNET_CHAIN_ID=31337 DEVNET_WS_URL=ws://127.0.0.1:8545 event-ingestor":
        "Follow a chain that is not built in",
      "event-ingestor check": "Check the configuration first",
    }),
    Command.withSubcommands([run(service), check, status, verify, tail, reset, chains, demo(service)]),
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

const exit = (code: number) => Effect.sync(() => process.exit(code))

const fail = (code: number) => (error: Error) => Effect.andThen(Console.error(error.message), exit(code))

/** Runs the command line as the whole process. @param service what `run` and `demo` run */
export const main = (service: Service, args: ReadonlyArray<string>): void =>
  Command.runWith(rootOf(service), { version })(args).pipe(
    Effect.catchIf(CliError.isCliError, (error) =>
      exit(error._tag === "ShowHelp" && error.errors.length === 0 ? exitCode.ok : exitCode.usage),
    ),
    Effect.catchTags({
      ConfigProblems: fail(exitCode.config),
      HttpError: fail(exitCode.config),
      UsageError: (error) => Effect.andThen(usage("event-ingestor", error.message), exit(exitCode.usage)),
      StoreError: fail(exitCode.unreachable),
      EndpointError: fail(exitCode.unreachable),
    }),
    Effect.provide(Layer.merge(NodeServices.layer, presenter)),
    runMain,
  )
