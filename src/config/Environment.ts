/**
 * Reading variables: where they come from, what a value of each kind looks like, and every problem at once.
 *
 * Process variables beat `.env`, an empty one counts as unset, and a secret may come from the file that `<NAME>_FILE`
 * names. Nothing here knows which variables there are; that is Config.ts.
 */
import { ByteSize, Config, ConfigProvider, Duration, Effect, Option } from "effect"
import { readFileSync, statSync } from "node:fs"
import { parseEnv } from "node:util"

export type Variables = Readonly<Record<string, string | undefined>>

/** The text of a file as editors and shells of any system write it. Throws where it is not known how to read it. */
const textOf = (path: string): string => {
  const bytes = readFileSync(path)
  const [first, second] = bytes
  const encoding =
    first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8"
  let text: string
  try {
    // A byte order mark is not part of what it decodes.
    text = new TextDecoder(encoding, { fatal: true }).decode(bytes)
  } catch {
    throw new Error(`bytes that are not ${encoding.toUpperCase()}: save ${path} as UTF-8`)
  }
  // Every second byte of UTF-16 without a byte order mark.
  if (text.includes("\0")) throw new Error(`zero bytes, as UTF-16 has them: save ${path} as UTF-8`)
  return text
}

/** `docker run --env-file` passes on the quotes that a shell and `.env` take away. */
const withoutQuotes = (value: string): string => /^(["'])(.*)\1$/s.exec(value.trim())?.[2] ?? value

/**
 * The variables of `.env` in `directory`, overridden by those of the process, which lose the quotes around a value.
 * Throws if there is a `.env` that cannot be read.
 */
export const withDotEnv = (process: Variables, directory: string): Variables => {
  const merged: Record<string, string | undefined> = {}
  try {
    Object.assign(merged, parseEnv(textOf(`${directory}/.env`)))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error
  }
  for (const [name, value] of Object.entries(process)) {
    const given = withoutQuotes(value ?? "")
    if (given) merged[name] = given
  }
  return merged
}

/** What went wrong with a file: the system's code, or in words. */
export const fileProblem = (error: unknown): string => {
  const { code, message } = error as NodeJS.ErrnoException
  return code ?? message
}

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

export const count = (minimum = 0): Codec<number> =>
  kind(`a whole number from ${minimum}`, (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
    return Number.isSafeInteger(value) && value >= minimum ? value : undefined
  })

export const port: Codec<number> = kind("a port from 1 to 65535", (text) => {
  const value = count(1).parse(text)
  return value !== undefined && value <= 65535 ? value : undefined
})

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

export const urlOf = (...protocols: ReadonlyArray<string>): Codec<URL> =>
  kind(
    `a URL that starts with ${protocols.map((protocol) => `${protocol}//`).join(" or ")} and has no # and no space`,
    (text) => {
      const url = URL.canParse(text) ? new URL(text) : undefined
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

/**
 * Whether Kubernetes (or Docker) set this variable, for a service that happens to be called so: `REDIS_PORT` of a service
 * `redis` is `tcp://10.0.0.7:6379`.
 */
export const isServiceLink = (name: string, value: string): boolean =>
  /_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/.test(name) ||
  (name.endsWith("_PORT") && /^(tcp|udp|sctp):\/\//.test(value))

/** A file with a secret in it is no larger (bytes): it is a line, or a list of URLs. */
const largestSecret = 64 * 1024

/** Reads variables one by one and keeps what was wrong with each, so that all of it can be reported together. */
export class Reader {
  readonly problems: Array<string> = []
  /** What was set and is not heeded. */
  readonly warnings: Array<string> = []
  readonly #variables: Variables
  readonly #provider: ConfigProvider.ConfigProvider
  readonly #names = new Set<string>()

  constructor(variables: Variables) {
    this.#variables = variables
    this.#provider = ConfigProvider.fromEnv({
      env: Object.fromEntries(Object.entries(variables).filter(([, value]) => value !== undefined)) as Record<
        string,
        string
      >,
    })
  }

  /** The names that were asked for so far, whether set or not. */
  get known(): ReadonlySet<string> {
    return this.#names
  }

  isSet(name: string): boolean {
    return Boolean(this.#variables[name] || this.#variables[`${name}_FILE`])
  }

  isFromFile(name: string): boolean {
    return Boolean(this.#variables[`${name}_FILE`])
  }

  /** A reader of the same variables that knows of no problem; files are read again. */
  again(): Reader {
    return new Reader(this.#variables)
  }

  problem(name: string, what: string): void {
    this.problems.push(`${name}: ${what}`)
  }

  /** The value of a variable, or `undefined` where it is unset or wrong; wrong is also a problem. */
  readonly read = <A>(name: string, kind: Codec<A>): Effect.Effect<A | undefined> =>
    this.#raw(name).pipe(
      Effect.map((raw) => (raw === undefined ? undefined : this.#parse(name, raw, kind, false))),
    )

  /** As `read`, for the variables of a standard that says to go on: `otherwise` is used for what is wrong, with a warning. */
  readonly lenient = <A extends string | number>(
    name: string,
    kind: Codec<A>,
    otherwise: A,
  ): Effect.Effect<A> =>
    this.#raw(name).pipe(
      Effect.map((raw) => {
        const value = raw === undefined ? otherwise : kind.parse(raw)
        if (value !== undefined) return value
        const got = JSON.stringify(raw!.slice(0, 80))
        this.warnings.push(`${name} is not used: expected ${kind.expected}, got ${got}; ${otherwise} is used`)
        return otherwise
      }),
    )

  /** As `read`, also from the file `<NAME>_FILE`, and never repeating the value in a problem. */
  readonly secret = <A>(name: string, kind: Codec<A>): Effect.Effect<A | undefined> =>
    Effect.all([this.#raw(name), this.#raw(`${name}_FILE`)]).pipe(
      Effect.map(([inline, file]) => {
        if (file === undefined)
          return inline === undefined ? undefined : this.#parse(name, inline, kind, true)
        if (inline === undefined) return this.#fromFile(`${name}_FILE`, file, kind)
        this.problem(name, `set either ${name} or ${name}_FILE, not both`)
        return undefined
      }),
    )

  #fromFile<A>(name: string, path: string, kind: Codec<A>): A | undefined {
    let content: string
    try {
      if (statSync(path).size > largestSecret) {
        this.problem(name, `expected a file of at most ${largestSecret} bytes, got ${path}`)
        return undefined
      }
      content = textOf(path).trim()
    } catch (error) {
      this.problem(name, `expected a readable file, got ${fileProblem(error)} for ${path}`)
      return undefined
    }
    if (content !== "") return this.#parse(name, content, kind, true)
    this.problem(name, `expected a file with ${kind.expected}, got an empty one`)
    return undefined
  }

  #raw(name: string): Effect.Effect<string | undefined> {
    this.#names.add(name)
    return Config.option(Config.String(name))
      .parse(this.#provider)
      .pipe(
        Effect.map((value) => Option.getOrUndefined(value)?.trim() || undefined),
        Effect.map((value) => {
          if (value === undefined || !isServiceLink(name, value)) return value
          this.warnings.push(`${name} is not used: ${value.slice(0, 80)} is a service link of Kubernetes`)
          return undefined
        }),
        Effect.orDie,
      )
  }

  #parse<A>(name: string, raw: string, kind: Codec<A>, secret: boolean): A | undefined {
    const value = kind.parse(raw)
    if (value === undefined) {
      const got = secret ? "" : `, got ${JSON.stringify(raw.slice(0, 80))}`
      this.problem(name, `expected ${kind.expected}${got}`)
    }
    return value
  }
}
