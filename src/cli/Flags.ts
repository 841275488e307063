/** Flags that select chains and blocks. */
import { Effect, Option } from "effect"
import { Flag } from "effect/cli"
import type { ChainConfig } from "../config/AppConfig.ts"
import { UsageError } from "./UsageError.ts"

export const chainFlag = Flag.String("chain").pipe(Flag.withDescription("A chain's name or id"))

export const jsonFlag = (what: string) =>
  Flag.Boolean("json").pipe(Flag.withDescription(what), Flag.withDefault(false))

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
export const resolveChain = (
  chains: ReadonlyArray<ChainConfig>,
  name: string,
): Effect.Effect<ChainConfig, UsageError> => {
  const found = chains.find((chain) => chain.name === name || String(chain.id) === name)
  const known = chains.map((chain) => chain.name).join(", ")
  return found === undefined
    ? Effect.fail(new UsageError({ detail: `--chain: expected one of ${known}, got ${name}` }))
    : Effect.succeed(found)
}

/** The configured chain with this name or id; without a name, all chains. */
export const resolveChains = (
  chains: ReadonlyArray<ChainConfig>,
  name: Option.Option<string>,
): Effect.Effect<ReadonlyArray<ChainConfig>, UsageError> =>
  Option.isNone(name)
    ? Effect.succeed(chains)
    : Effect.map(resolveChain(chains, name.value), (chain) => [chain])
