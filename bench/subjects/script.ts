import { start } from "../child.ts"
import { argumentsOf } from "./Subject.ts"
import type { Subject } from "./Subject.ts"

/** A user's script: viem for the chain, ioredis for the stream, an `await` for each log. */
export const script: Subject = {
  name: "script",
  start: (where) => start(new URL("scriptMain.ts", import.meta.url), argumentsOf(where)),
}
