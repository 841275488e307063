/** The command line: verbs, and what a failure of each kind means for the exit code. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect } from "effect"
import { CliError, Command } from "effect/cli"
import { exitCode, runMain } from "../Process.ts"
import { check } from "./check.ts"
import { demo } from "./demo.ts"
import { reset } from "./reset.ts"
import { run, serve } from "./run.ts"
import { status } from "./status.ts"
import { tail } from "./tail.ts"
import { verify } from "./verify.ts"
import { version } from "../Version.ts"

const root = Command.make("event-ingestor", {}, () => serve).pipe(
  Command.withDescription("Every event log of many EVM chains in a durable stream, in order, exactly once"),
  Command.withSubcommands([run, check, status, verify, tail, reset, demo]),
)

const fail = (code: number) => Effect.sync(() => process.exit(code))

export const main = (args: ReadonlyArray<string>): void =>
  Command.runWith(root, { version })(args).pipe(
    Effect.catchIf(CliError.isCliError, (error) =>
      fail(error._tag === "ShowHelp" && error.errors.length === 0 ? exitCode.ok : exitCode.usage),
    ),
    Effect.catchTags({
      ConfigProblems: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.config)),
      HttpError: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.config)),
      UsageError: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.usage)),
      StoreError: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.unreachable)),
      EndpointError: (error) => Effect.andThen(Console.error(error.message), fail(exitCode.unreachable)),
    }),
    Effect.provide(NodeServices.layer),
    runMain,
  )
