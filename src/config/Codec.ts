/** What the value of a variable must look like, and how it is read. Pure. */
import { ByteSize, Duration, Option, Redacted } from "effect"
import type { Hex } from "../Domain.ts"

/** What a value must look like. `parse` answers `undefined` for anything else. */
export interface Codec<A> {
  readonly expected: string
  readonly parse: (text: string) => A | undefined
}

export const kind = <A>(expected: string, parse: (text: string) => A | undefined): Codec<A> => ({
  expected,
  parse,
})

export const text: Codec<string> = kind("some text", (text) => text)

export const secret: Codec<Redacted.Redacted<string>> = kind(text.expected, (text) => Redacted.make(text))

const digits = (expected: string, least: number, most = Number.MAX_SAFE_INTEGER): Codec<number> =>
  kind(expected, (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
    return value >= least && value <= most ? value : undefined
  })

export const count = (least = 0): Codec<number> => digits(`a whole number from ${least}`, least)

/** A whole number within bounds. */
export const between = (least: number, most: number, what: string): Codec<number> =>
  digits(`${what} from ${least} to ${most}`, least, most)

export const port: Codec<number> = between(1, 65535, "a port")

/** A port to listen on: 0 is any that is free. */
export const listenPort: Codec<number> = kind("a port from 1 to 65535, or 0 for any", (text) =>
  text === "0" ? 0 : port.parse(text),
)

export const positive: Codec<number> = kind("a number above 0", (text) =>
  /^\d+(\.\d+)?$/.test(text) && Number(text) > 0 ? Number(text) : undefined,
)

const durationUnits: Readonly<Record<string, Duration.Unit>> = {
  ms: "millis",
  s: "seconds",
  m: "minutes",
  h: "hours",
}

/** `500ms`, `10s`, `2m`, or in Effect's own words `10 seconds`. A bare number is refused: of what? */
export const duration: Codec<Duration.Duration> = kind(
  "a duration such as 500ms, 10s or 2 minutes",
  (text) => {
    const short = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/.exec(text)
    const parsed = short
      ? Duration.fromInput(`${Number(short[1])} ${durationUnits[short[2]!]!}`)
      : Duration.fromInput(text as Duration.Input)
    return Option.getOrUndefined(
      Option.filter(parsed, (value) => Duration.isFinite(value) && Duration.toMillis(value) > 0),
    )
  },
)

/** `33554432` or `32MiB`. */
export const bytes = (most: number): Codec<number> =>
  kind(`a size in bytes such as 33554432 or 32MiB, ${most} at most`, (text) => {
    const size = ByteSize.fromInput((/^\d+$/.test(text) ? `${text} B` : text) as ByteSize.Input)
    const value = Option.isSome(size) ? Number(ByteSize.toBigInt(size.value)) : 0
    return value > 0 && value <= most ? value : undefined
  })

export const oneOf = <const Choices extends ReadonlyArray<string>>(
  ...choices: Choices
): Codec<Choices[number]> =>
  kind(`one of ${choices.join(", ")}`, (text) => choices.find((choice) => choice === text.toLowerCase()))

/** One of two words: whether it is the first. */
export const either = (yes: string, no: string): Codec<boolean> =>
  kind(`one of ${yes}, ${no}`, (text) => {
    const choice = oneOf(yes, no).parse(text)
    return choice === undefined ? undefined : choice === yes
  })

export const urlOf = (...protocols: ReadonlyArray<string>): Codec<URL> =>
  kind(
    `a URL that starts with ${protocols.map((protocol) => `${protocol}//`).join(" or ")} and has no # and no space`,
    (text) => {
      const url = URL.parse(text)
      const fits = url && protocols.includes(url.protocol) && url.hostname !== "" && !/[#\s]/.test(text)
      return fits ? url : undefined
    },
  )

/** Several values with commas between them; at least one. */
export const list = <A>(item: Codec<A>): Codec<ReadonlyArray<A>> =>
  kind(`${item.expected}; several with commas between them`, (text) => {
    const items = text.split(",").map((part) => part.trim())
    const parsed = items.flatMap((part) => {
      const value = part === "" ? undefined : item.parse(part)
      return value === undefined ? [] : [value]
    })
    return parsed.length === items.length ? parsed : undefined
  })

/** `0x` and hexadecimal digits, in lower case from here on. @param bytes how many it must have */
export const hexOf = (bytes: number, what: string): Codec<Hex> =>
  kind(`${what} (0x and ${bytes * 2} hex digits)`, (text) =>
    text.length === 2 + bytes * 2 && /^0x[0-9a-fA-F]+$/.test(text) ? (text.toLowerCase() as Hex) : undefined,
  )

/** A number, or a word that stands for one. */
export const orWord = <const Word extends string>(word: Word, kind_: Codec<number>): Codec<Word | number> =>
  kind(`\`${word}\` or ${kind_.expected}`, (text) => (text.toLowerCase() === word ? word : kind_.parse(text)))
