/** The command line: its commands, and the exit code of each kind of failure. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Layer } from "effect"
import { CliError, CliOutput, Command } from "effect/cli"
import { didYouMean } from "../config/Suggestions.ts"
import { commit, version } from "../Version.ts"
import { chains } from "./chains.ts"
import { check } from "./check.ts"
import { demo } from "./demo.ts"
import { oneLine, withExamples } from "./Flags.ts"
import type { Service } from "./Layers.ts"
import { exitCode, runMain } from "./Process.ts"
import { consoleAboveBars } from "./ProgressBars.ts"
import { reset } from "./reset.ts"
import { run, serve } from "./run.ts"
import { status } from "./status.ts"
import { tail } from "./tail.ts"
import { top } from "./top.ts"
import { verify } from "./verify.ts"

const root = "event-ingestor"

const commandsOf = (service: Service) =>
  [run(service), check, status, top, verify, tail, reset, chains, demo(service)] as const

const rootOf = (service: Service, commands: ReturnType<typeof commandsOf>) =>
  Command.make(root, {}, () => serve(service)).pipe(
    Command.withDescription("Every event log of many EVM chains in a durable stream, in order, exactly once"),
    withExamples({
      "CHAINS=base event-ingestor": "Follow Base, through its public endpoints",
      "CHAINS=devnet DEVNET_CHAIN_ID=31337 DEVNET_WS_URL=ws://127.0.0.1:8545 event-ingestor":
        "Follow a chain that is not built in",
      "event-ingestor check": "Check the configuration first",
    }),
    Command.withSubcommands(commands),
  )

/** Prints a usage error as one line that points to the help of the command. */
const usage = (command: string, detail: string) =>
  Console.error(`${command}: ${oneLine(detail)} (see ${command} --help)`)

const detailOf = (error: CliError.NonShowHelpErrors): string => {
  switch (error._tag) {
    case "UnrecognizedOption":
      return `unknown flag ${error.option}${didYouMean(error.suggestions)}`
    case "UnknownSubcommand":
      return `unknown command ${JSON.stringify(error.subcommand)}${didYouMean(error.suggestions)}`
    case "InvalidValue":
      // What one of our flags expects is a sentence already.
      return error.expected.startsWith("expected ")
        ? `${error.kind === "flag" ? "--" : ""}${error.option}: ${error.expected}`
        : error.message
    default:
      return error.message
  }
}

/** Prints the help only for `--help`, not with each usage error; and the commit with the version. */
const presenter = CliOutput.layerPresenter({
  present: (event) => {
    if (event._tag === "InvalidInvocation")
      return usage(event.commandPath.join(" "), event.errors.map(detailOf).join("; "))
    if (event._tag === "Help") return CliOutput.defaultPresenter.present(event)
    const of = commit()
    return CliOutput.defaultPresenter.present({
      ...event,
      version: of === undefined ? event.version : `${event.version} (${of})`,
    })
  },
})

const exit = (code: number) => Effect.sync(() => process.exit(code))

const fail = (code: number) => (error: Error) => Effect.andThen(Console.error(error.message), exit(code))

/** Runs the command line as the whole process. @param service what `run` and `demo` run */
export const main = (service: Service, args: ReadonlyArray<string>): void => {
  const commands = commandsOf(service)
  const verb = args.find((arg) => commands.some(({ name }) => name === arg))
  const path = verb === undefined ? root : `${root} ${verb}`
  return Command.runWith(rootOf(service, commands), { version })(args).pipe(
    Effect.catchIf(CliError.isCliError, (error) =>
      exit(error._tag === "ShowHelp" && error.errors.length === 0 ? exitCode.ok : exitCode.usage),
    ),
    Effect.catchTags({
      ConfigProblems: fail(exitCode.config),
      HttpError: fail(exitCode.config),
      UsageError: (error) => Effect.andThen(usage(path, error.message), exit(exitCode.usage)),
      StoreError: fail(exitCode.unreachable),
      NoStatus: fail(exitCode.unreachable),
      EndpointError: fail(exitCode.unreachable),
    }),
    Effect.provide(Layer.merge(NodeServices.layer, presenter)),
    Effect.provideService(Console.Console, consoleAboveBars),
    runMain,
  )
}
