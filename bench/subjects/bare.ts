import { start } from "../child.ts"
import { argumentsOf } from "./Subject.ts"
import type { Subject } from "./Subject.ts"

const main = new URL("bareMain.ts", import.meta.url)

/** The shortest honest loop, without Effect or checks: the baseline. */
export const bare: Subject = { name: "bare", start: (where) => start(main, argumentsOf(where)) }

/** The same with the checks of every log, and without Effect: what a service can reach that validates what it writes. */
export const checked: Subject = {
  name: "bare, checked",
  start: (where) => start(main, [...argumentsOf(where), "checked"]),
}
