/** Runs before all tests: builds the service once. Tests run the build, which also starts much faster. */
import { Effect, Exit, Scope } from "effect"
import { build } from "./built.ts"

export default async () => {
  const scope = Scope.makeUnsafe()
  process.env["SERVICE_ENTRY"] = await Effect.runPromise(Scope.provide(build, scope))
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
