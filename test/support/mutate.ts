/** Nearly valid inputs: bytes and JSON mutated at random, reproducible by seed. */

/** A small random generator (mulberry32), deterministic on every platform. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** An integer from 0 up to, but not including, `below`. */
  roll(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }

  pick<A>(choices: ReadonlyArray<A>): A {
    return choices[this.roll(choices.length)]!
  }
}

/** Unusual values for any field, as JSON. */
const odd: ReadonlyArray<string> = [
  "null",
  "true",
  "0",
  "-1",
  "1.5",
  "1e400",
  "9007199254740993",
  '""',
  '"0x"',
  '"0x0"',
  '"0x1fffffffffffff"',
  '"0x20000000000000"',
  '"-0x1"',
  `"0x${"f".repeat(1000)}"`,
  `"0x${"0".repeat(1000)}1"`,
  `"0x${"ab".repeat(32)}"`,
  `"0X${"AB".repeat(32)}"`,
  `"${"x".repeat(50_000)}"`,
  String.raw`"\ud800"`,
  String.raw`"\u0000\u001b[31m\u2028"`,
  String.raw`"0x12\n"`,
  '"__proto__"',
  "[]",
  "{}",
  "[null]",
  '{"toString":1,"valueOf":1}',
  '[{"toString":1}]',
  '{"__proto__":{"id":1}}',
  `${"[".repeat(5000)}${"]".repeat(5000)}`,
  `${'{"a":'.repeat(2000)}1${"}".repeat(2000)}`,
]

type Mutator = (text: string, dice: Dice, corpus: ReadonlyArray<string>) => string

const flip: Mutator = (text, dice) => {
  const bytes = Buffer.from(text)
  for (let i = dice.roll(4); i >= 0 && bytes.length > 0; i--)
    bytes[dice.roll(bytes.length)]! ^= 1 << dice.roll(8)
  return bytes.toString()
}

const truncate: Mutator = (text, dice) => text.slice(0, dice.roll(text.length + 1))

const splice: Mutator = (text, dice, corpus) => {
  const other = dice.pick(corpus)
  return text.slice(0, dice.roll(text.length + 1)) + other.slice(dice.roll(other.length + 1))
}

/** A JSON token: a key with its colon, or a primitive value. */
const tokens = /"(?:[^"\\]|\\.)*"(?:\s*:)?|-?\d[\d.eE+-]*|true|false|null/g

const oneOf = (text: string, dice: Dice, wanted: (token: string) => boolean) => {
  const found = [...text.matchAll(tokens)].filter(([token]) => wanted(token))
  return found.length === 0 ? undefined : dice.pick(found)
}

const isKey = (token: string) => token.endsWith(":")

const replaceValue: Mutator = (text, dice) => {
  const found = oneOf(text, dice, (token) => !isKey(token))
  if (found === undefined) return text
  return text.slice(0, found.index) + dice.pick(odd) + text.slice(found.index + found[0].length)
}

/** Duplicates a key with another value; parsers use the second one. */
const duplicateKey: Mutator = (text, dice) => {
  const found = oneOf(text, dice, isKey)
  if (found === undefined) return text
  return `${text.slice(0, found.index)}${found[0]}${dice.pick(odd)},${text.slice(found.index)}`
}

const renameKey: Mutator = (text, dice) => {
  const found = oneOf(text, dice, isKey)
  if (found === undefined) return text
  const name = dice.pick(["__proto__", "constructor", "toString", "unknown", ""])
  return `${text.slice(0, found.index)}"${name}":${text.slice(found.index + found[0].length)}`
}

/** Wraps a text in an array or object, or concatenates it. */
const wrap: Mutator = (text, dice, corpus) =>
  dice.pick([
    `[${text}]`,
    `[${text},${dice.pick(corpus)}]`,
    `{"result":${text}}`,
    `${text}${text}`,
    ` ${text}\n`,
  ])

export const mutators: ReadonlyArray<Mutator> = [
  flip,
  truncate,
  splice,
  replaceValue,
  replaceValue,
  duplicateKey,
  renameKey,
  wrap,
]

/** One to three mutations of one entry of a corpus of JSON texts. */
export const mutated = (corpus: ReadonlyArray<string>, dice: Dice): string => {
  let text = dice.pick(corpus)
  for (let i = dice.roll(3); i >= 0; i--) text = dice.pick(mutators)(text, dice, corpus)
  return text
}

/** Seed and number of inputs; for a long run set `FUZZ_INPUTS=1000000 FUZZ_SEED=2`. */
export const seed = Number(process.env["FUZZ_SEED"] ?? 1)
export const inputs = Number(process.env["FUZZ_INPUTS"] ?? 1500)

/** Checks each input; a failure names the input and how to reproduce it. */
export const fuzz = (make: (dice: Dice) => string, check: (input: string) => void): void => {
  for (let i = 0; i < inputs; i++) {
    const input = make(new Dice(seed * 1_000_003 + i))
    const since = performance.now()
    try {
      check(input)
    } catch (cause) {
      const shown = input.length > 2000 ? `${input.slice(0, 2000)}… (${input.length} characters)` : input
      throw new Error(`input ${i} of FUZZ_SEED=${seed}: ${shown}`, { cause })
    }
    const took = performance.now() - since
    if (took > 5000) throw new Error(`input ${i} of FUZZ_SEED=${seed} took ${took} ms`)
  }
}
