/** Recognises moves on the connection to Redis, so that a fault can hit a certain point of a move. */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import type { Position } from "../src/store/Journal.ts"
import { wordsOf } from "../test/support/wire.ts"

export type Script = "push" | "pop"

const source = (name: string) =>
  readFileSync(new URL(`../src/store/redis/lua/${name}.lua`, import.meta.url), "utf8")

const textOf = (script: Script) => `${source("common")}\n${source("retention")}\n${source(script)}`

/** Scripts are identified by their digest (EVALSHA), or by their text (EVAL). */
const names = new Map<string, Script>(
  (["push", "pop"] as const).flatMap((script) => [
    [textOf(script), script],
    [createHash("sha1").update(textOf(script)).digest("hex"), script],
  ]),
)

/** A move in flight to Redis. */
export interface Request {
  readonly script: Script
  /** The expected head. */
  readonly expected: Position
  /** Whether it is a part of a block that needs more than one call, and not the last part. */
  readonly part: boolean
}

/** The keys of a script come before its arguments. */
const numberOfKeys = 6

/** The index of the first block among the arguments of a push, as its script has it (where the first argument is 1). */
const firstBlockAt = Number(/^local firstAt = (\d+)$/m.exec(source("push"))![1]) - 1

/** The index of the argument that says whether the first block of a push is complete. */
const wholeAt = firstBlockAt + 4

/** Decodes a request, if it is a move. */
export const moveOf = (request: Buffer): Request | undefined => {
  // Destructuring reads only the first words; most requests that are no moves are short.
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
