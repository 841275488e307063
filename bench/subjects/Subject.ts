/** Whoever brings the provider's blocks into the store. */
import type { Effect, Scope } from "effect"
import type { Child } from "../child.ts"

export interface Surroundings {
  readonly redisPort: number
  readonly providerPort: number
  readonly chains: ReadonlyArray<number>
  /** More variables, for the figures that are about one. */
  readonly env?: Readonly<Record<string, string>>
}

export interface Subject {
  readonly name: string
  readonly start: (where: Surroundings) => Effect.Effect<Child, never, Scope.Scope>
}

/** What the small subjects, which are programs of their own, are told. */
export const argumentsOf = ({ redisPort, providerPort, chains }: Surroundings): ReadonlyArray<string> => [
  String(redisPort),
  String(providerPort),
  chains.join(","),
]
