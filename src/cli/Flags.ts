/** Flags that several commands have, and examples for their help. */
import { Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { AppConfig } from "../config/AppConfig.ts"
import { chainsLike, didYouMean } from "../config/Suggestions.ts"

/** Wrong usage of the command line that its parser cannot find. */
export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", { detail: Schema.String }) {
  override get message() {
    return this.detail
  }
}

/** The text without line breaks. */
export const oneLine = (text: string): string => text.replace(/\s*\n\s*/g, " ")

/** Sets the examples of a command: command lines, and what each does. */
export const withExamples = (examples: Readonly<Record<string, string>>) =>
  Command.withExamples(Object.entries(examples).map(([command, description]) => ({ command, description })))

export const chainFlag = Flag.String("chain").pipe(Flag.withDescription("A chain's name or id"))

/** A flag that is off unless it is given. */
export const booleanFlag = (name: string, what: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(what), Flag.withDefault(false))

export const jsonFlag = (what: string) => booleanFlag("json", what)

/** A flag with a block number, validated while parsing. */
export const blockFlag = (name: string, what: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(what),
    Flag.filter(
      (text) => /^\d{1,15}$/.test(text),
      (text) => `expected a block number, got ${text}`,
    ),
    Flag.map(Number),
    Flag.optional,
  )

/** The configured chain with this name or id. */
export const resolveChain = Effect.fnUntraced(function* (name: string) {
  const { chains } = yield* AppConfig
  const found = chains.find((chain) => chain.name === name || String(chain.id) === name)
  if (found !== undefined) return found
  const names = chains.map((chain) => chain.name)
  return yield* new UsageError({
    detail: `--chain: expected one of ${names.join(", ")} (CHAINS), got ${oneLine(name)}${didYouMean(chainsLike(name, names))}`,
  })
})

/** The configured chain with this name or id; without a name, all chains. */
export const resolveChains = (name: Option.Option<string>) =>
  Option.isNone(name)
    ? Effect.map(AppConfig, ({ chains }) => chains)
    : Effect.map(resolveChain(name.value), (chain) => [chain])
