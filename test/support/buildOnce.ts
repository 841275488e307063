/** Before all tests: the service is built once, and every test runs it as it is shipped, which starts much faster too. */
import { Effect, Exit, Scope } from "effect"
import { build } from "./built.ts"

export default async () => {
  const scope = Scope.makeUnsafe()
  process.env["SERVICE_ENTRY"] = await Effect.runPromise(Scope.provide(build, scope))
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
