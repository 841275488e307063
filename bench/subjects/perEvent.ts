import { start } from "../child.ts"
import { argumentsOf } from "./Subject.ts"
import type { Subject } from "./Subject.ts"

/** The original system's way: SADD, EXPIRE, XADD, one round trip each, one event at a time. */
export const perEvent: Subject = {
  name: "per-event",
  start: (where) => start(new URL("perEventMain.ts", import.meta.url), argumentsOf(where)),
}
