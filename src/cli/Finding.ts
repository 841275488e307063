/** What `check` prints: one line per finding. */
import { style } from "./Output.ts"

/** What is found about one subject. */
export interface Trait {
  readonly level: "ok" | "warning" | "failure"
  readonly detail: string
  /** The recommended action. */
  readonly fix?: string
}

export interface Finding extends Trait {
  readonly subject: string
}

const trait =
  (level: Trait["level"]) =>
  (detail: string, fix?: string): Trait => ({ level, detail, ...(fix !== undefined && { fix }) })

export const ok = trait("ok")
export const warning = trait("warning")
export const failure = trait("failure")

export const about = (subject: string, trait: Trait): Finding => ({ subject, ...trait })

const marks = { ok: ["✓", 32], warning: ["!", 33], failure: ["✗", 31] } as const

export const renderText = ({ subject, level, detail, fix }: Finding): string => {
  const [mark, colour] = marks[level]
  return `${style(colour, mark)} ${subject.padEnd(28)} ${detail}${fix === undefined ? "" : style(2, `  → ${fix}`)}`
}
