import { start } from "../child.ts"
import { argumentsOf } from "./Subject.ts"
import type { Subject } from "./Subject.ts"

/** The shortest honest loop, without Effect or checks: the baseline. */
export const bare: Subject = {
  name: "bare",
  start: (where) => start(new URL("bareMain.ts", import.meta.url), argumentsOf(where)),
}
