/** Recorded responses of real nodes (`test/fixtures/answers.json`). */
import { readFileSync } from "node:fs"

interface Recorded {
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown }
  /** A frame as it was sent; `%id` is the id of the request. */
  readonly frame?: string
  /** The fields that differ from the responses of other nodes. */
  readonly result?: Readonly<Record<string, unknown>>
}

export const answers = JSON.parse(
  readFileSync(new URL("../fixtures/answers.json", import.meta.url), "utf8"),
) as Readonly<Record<string, Recorded>>
