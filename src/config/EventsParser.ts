/** Parses the value of `EVENTS`. This file is loaded only where it is set. */
import { parseAbiItem } from "abitype"
import { Effect, Option, Schema } from "effect"
import { keccak } from "hash-wasm"
import { createHash } from "node:crypto"
import { readText, unreadable } from "./Environment.ts"
import { distinct, problemOf, signatureOf, textOf } from "../abi/EventAbi.ts"
import type { EventAbi, EventAbis, Named, Parameter } from "../abi/EventAbi.ts"

const example = "Transfer(address indexed from, address indexed to, uint256 value)"

/** An ABI file is no larger (bytes). */
const largestAbi = 4 * 1024 * 1024

const Parameter: Schema.Codec<Parameter> = Schema.Struct({
  name: Schema.optional(Schema.String),
  type: Schema.String,
  indexed: Schema.optional(Schema.Boolean),
  components: Schema.optional(Schema.Array(Schema.suspend(() => Parameter))),
})

const Item = Schema.Struct({ type: Schema.String })

const EventItem = Schema.Struct({
  name: Schema.String,
  inputs: Schema.Array(Parameter),
  anonymous: Schema.optional(Schema.Boolean),
})

/** An ABI, or what a compiler writes around one (`{"abi": […]}`). */
const Abi = Schema.fromJsonString(
  Schema.Union([Schema.Array(Schema.Unknown), Schema.Struct({ abi: Schema.Array(Schema.Unknown) })]),
)

/** `uint` and `int` stand for 256 bits. */
const normalized = ({ type, components, ...other }: Parameter): Parameter => ({
  ...other,
  type: type.replace(/^(u?int)(?=$|\[)/, "$1256"),
  ...(components && { components: components.map(normalized) }),
})

const checked = (event: Named, isAnonymous = false): Effect.Effect<Named, string> => {
  const named = { name: event.name, inputs: event.inputs.map(normalized) }
  const problem = problemOf(named, isAnonymous)
  return problem === undefined ? Effect.succeed(named) : Effect.fail(problem)
}

/** The reason of abitype's error, without its version and its links. */
const reasonOf = (error: unknown): string =>
  String((error as Error).message)
    .split("\n")
    .filter((line) => line !== "" && !/^(Version|Details):/.test(line))
    .join(" ")

/** Parses a signature such as `Transfer(address indexed from, address indexed to, uint256 value)`. */
const parseSignature = (text: string): Effect.Effect<Named, string> => {
  const compact = text
    .trim()
    .replace(/^event\s+/, "")
    .replace(/\s+/g, " ")
    .replace(/ ?([(,]) ?/g, "$1")
    .replace(/ \)/g, ")")
  const [, signature = "", anonymous] = /^(.*\))( anonymous)?$/.exec(compact) ?? []
  return Effect.try({
    try: () => {
      const item = parseAbiItem(`event ${signature || compact}`) as unknown as Named
      return { name: item.name, inputs: item.inputs }
    },
    catch: (error) => `${JSON.stringify(text.trim().slice(0, 200))} is no event: ${reasonOf(error)}`,
  }).pipe(Effect.flatMap((event) => checked(event, anonymous !== undefined)))
}

/** Reads the events of an ABI file. */
const readAbi = Effect.fnUntraced(function* (path: string) {
  const text = yield* Effect.try({
    try: () => readText(path, largestAbi),
    catch: (error) => `${unreadable(error)} for ${path}`,
  })
  const abi = Schema.decodeUnknownOption(Abi)(text)
  if (Option.isNone(abi))
    return yield* Effect.fail(`${path} is no ABI in JSON: expected an array of its items`)
  const items = "abi" in abi.value ? abi.value.abi : abi.value
  const events: Array<Named> = []
  for (const [i, item] of items.entries()) {
    const type = Schema.decodeUnknownOption(Item)(item)
    if (Option.getOrUndefined(type)?.type !== "event") continue
    const event = Schema.decodeUnknownOption(EventItem)(item)
    if (Option.isNone(event)) return yield* Effect.fail(`item ${i} of ${path} is no event of an ABI`)
    events.push(
      yield* Effect.mapError(checked(event.value, event.value.anonymous), (why) => `${why} (${path})`),
    )
  }
  if (events.length === 0) return yield* Effect.fail(`${path} has no events`)
  return events
})

/** A path has no parenthesis, or ends with `.json`. */
const isPath = (text: string) => !text.includes("(") || /\.json$/i.test(text)

const digestOf = (events: ReadonlyArray<Named>) =>
  createHash("sha256")
    .update(JSON.stringify(events.map(textOf).sort()))
    .digest("hex")
    .slice(0, 16)

/**
 * Parses signatures separated by `;`, or reads the events of the ABI file that is named instead.
 *
 * Fails with what is wrong with the value, in a sentence.
 */
export const parseEvents = Effect.fnUntraced(function* (text: string): Effect.fn.Return<EventAbis, string> {
  const signatures = text.split(";").filter((part) => part.trim() !== "")
  if (signatures.length === 0) return yield* Effect.fail(`expected an event such as ${example}`)
  const all = isPath(text) ? yield* readAbi(text) : yield* Effect.forEach(signatures, parseSignature)
  const events = distinct(all)
  if ("ambiguous" in events) {
    const [one, other] = events.ambiguous
    return yield* Effect.fail(
      `${one} and ${other} cannot be distinguished: they have the same types and the same number of topics`,
    )
  }
  const hashed = yield* Effect.forEach(events, (event) => {
    const signature = signatureOf(event)
    return Effect.map(
      Effect.promise(() => keccak(signature, 256)),
      (hash): EventAbi => ({ ...event, signature, topic0: `0x${hash}` }),
    )
  })
  return { events: hashed, digest: digestOf(events) }
})
