import { start } from "../child.ts"
import { argumentsOf } from "./Subject.ts"
import type { Subject } from "./Subject.ts"

/** The approach of the original system: SADD, EXPIRE, XADD, one round trip each, one event at a time. */
export const perEvent: Subject = {
  name: "per-event",
  start: (where) => start(new URL("perEventMain.ts", import.meta.url), argumentsOf(where)),
}
