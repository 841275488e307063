/** Recognises the store's moves on the leg to Redis, so that a fault can come at one point of a move. */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import type { Position } from "../src/store/Journal.ts"
import { wordsOf } from "../test/support/wire.ts"

export type Script = "push" | "pop"

const source = (name: string) =>
  readFileSync(new URL(`../src/store/redis/lua/${name}.lua`, import.meta.url), "utf8")

const textOf = (script: Script) => `${source("journal")}\n${source(script)}`

/** A script goes by its digest, or by its text where the server does not know it. */
const names = new Map<string, Script>(
  (["push", "pop"] as const).flatMap((script) => [
    [textOf(script), script],
    [createHash("sha1").update(textOf(script)).digest("hex"), script],
  ]),
)

/** A move on its way to Redis. */
export interface Request {
  readonly script: Script
  /** The head that it expects. */
  readonly expected: Position
  /** Whether it is a part of a block that needs more than one call, and not the last. */
  readonly part: boolean
}

/** A script's keys come before its arguments. */
const numberOfKeys = 6

/** Where a push says how much of its first block it holds. */
const wholeAt = 16

/** What a request asks for, when it is a move. */
export const moveOf = (request: Buffer): Request | undefined => {
  // Most other requests are short, and a long one need not be read to its end to be told apart.
  const [command, name = "", , ...rest] = wordsOf(request)
  const script = command?.toUpperCase().startsWith("EVAL") ? names.get(name) : undefined
  if (script === undefined) return undefined
  const args = rest.slice(numberOfKeys)
  const [, number, hash, part, digest] = args
  return {
    script,
    expected: {
      number: Number(number),
      hash: hash as Position["hash"],
      part: Number(part),
      ...(digest && { digest }),
    },
    part: script === "push" && args[wholeAt] === "0",
  }
}
