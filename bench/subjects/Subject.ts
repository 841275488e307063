/** A program that writes the provider's blocks into the store. */
import type { Effect, Scope } from "effect"
import type { Child } from "../child.ts"

export interface SubjectOptions {
  readonly redisPort: number
  readonly providerPort: number
  readonly chains: ReadonlyArray<number>
  /** Additional environment variables, for figures about one setting. */
  readonly env?: Readonly<Record<string, string>>
}

export interface Subject {
  readonly name: string
  readonly start: (where: SubjectOptions) => Effect.Effect<Child, never, Scope.Scope>
}

/** The arguments of the small subjects, which are programs of their own. */
export const argumentsOf = ({ redisPort, providerPort, chains }: SubjectOptions): ReadonlyArray<string> => [
  String(redisPort),
  String(providerPort),
  chains.join(","),
]
