/**
 * A configuration variable is defined once: its name, what its value must look like, its default, and what the README and
 * `.env.example` say about it (`npm run config` writes both). The reader decodes variables and collects every problem.
 */
import { Config, ConfigProvider, Effect, Option, Record } from "effect"
import type { Codec } from "./Codec.ts"
import { isServiceLink, readSecret } from "./Environment.ts"
import type { Variables } from "./Environment.ts"

interface Description {
  /** For the README and `.env.example`: one sentence or two, in Markdown. */
  readonly meaning: string
  /** What `.env.example` shows where there is no default. */
  readonly example?: string
  /** How the documents show a default that depends on something else. */
  readonly shownDefault?: string
  /** Also read from the file that `<NAME>_FILE` names, and never repeated in a problem. */
  readonly isSecret?: true
  /** Of a standard that says to go on with the default, with a warning, where a value is not known. */
  readonly isLenient?: true
}

/** @typeParam Unset what it is where it is not set */
export interface Variable<A, Unset = A | undefined> extends Description {
  readonly name: string
  readonly codec: Codec<A>
  /** As it would be written in a variable. */
  readonly default: string | undefined
  readonly unset: Unset
}

/**
 * Defines a variable.
 *
 * @param name without the prefix of a chain
 * @param description with `default`, as it would be written in the variable, the value is never `undefined`
 */
export const variable = <A, Default extends string | undefined = undefined>(
  name: string,
  codec: Codec<A>,
  { default: text, ...description }: Description & { readonly default?: Default },
): Variable<A, Default extends string ? A : undefined> => {
  const unset = text === undefined ? undefined : codec.parse(text)
  if (text !== undefined && unset === undefined) throw new Error(`the default of ${name} is not valid`)
  return {
    name,
    codec,
    default: text,
    unset: unset as Default extends string ? A : undefined,
    ...description,
  }
}

/** Variables of one kind, as the README and `.env.example` list them. */
export interface Section {
  readonly title: string
  readonly variables: ReadonlyArray<Variable<unknown, unknown>>
  /** Variables of each chain have its name before them; where there is a value for all chains, the name may be left out. */
  readonly prefix?: "chain" | "chain or all"
}

/** The values of a record of variables. */
export type Values<Defined> = {
  readonly [Key in keyof Defined]: Defined[Key] extends Variable<infer A, infer Unset> ? A | Unset : never
}

/** Reads variables and keeps what is wrong with each, so that all of it is reported together. */
export class Reader {
  readonly problems: Array<string> = []
  /** What is set and not used. */
  readonly warnings: Array<string> = []
  readonly #variables: Variables
  readonly #provider: ConfigProvider.ConfigProvider
  readonly #names = new Set<string>()

  constructor(variables: Variables) {
    this.#variables = variables
    this.#provider = ConfigProvider.fromEnvRecord(variables)
  }

  /** The names that were read so far, whether set or not. */
  get known(): ReadonlySet<string> {
    return this.#names
  }

  isSet(name: string): boolean {
    return Boolean(this.#variables[name]) || this.isFromFile(name)
  }

  isFromFile(name: string): boolean {
    return Boolean(this.#variables[`${name}_FILE`])
  }

  /** A reader of the same variables without problems; secret files are read again. */
  again(): Reader {
    return new Reader(this.#variables)
  }

  problem(name: string, what: string): undefined {
    this.problems.push(`${name}: ${what}`)
  }

  /**
   * The values of all variables of a record.
   *
   * @param prefix what stands before their names
   * @param otherwise defaults that take the place of the variables' own
   */
  all<Defined extends Readonly<Record<string, Variable<unknown, unknown>>>>(
    variables: Defined,
    prefix = "",
    otherwise: Partial<Values<Defined>> = {},
  ): Effect.Effect<Values<Defined>> {
    const values = Record.map(variables, (one, key) => this.get(one, { prefix, otherwise: otherwise[key] }))
    return Effect.all(values) as Effect.Effect<Values<Defined>>
  }

  /**
   * The value of a variable. Where it is wrong, that is a problem (a warning if the variable is lenient), and the default is
   * returned.
   *
   * @param prefix what stands before its name
   * @param otherwise a default that takes the place of the variable's own
   */
  get<A, Unset>(
    variable: Variable<A, Unset>,
    { prefix = "", otherwise }: { readonly prefix?: string; readonly otherwise?: A | Unset } = {},
  ): Effect.Effect<A | Unset> {
    const { codec, isLenient = false, isSecret = false } = variable
    const name = `${prefix}${variable.name}`
    const unset = otherwise ?? variable.unset
    if (isSecret) return Effect.map(this.#secret(name, codec), (value) => value ?? unset)
    return Effect.map(this.text(name), (raw) => {
      if (raw === undefined) return unset
      const value = codec.parse(raw)
      if (value !== undefined) return value
      const wrong = `expected ${codec.expected}, got ${JSON.stringify(raw.slice(0, 80))}`
      if (isLenient) this.warnings.push(`${name} is not used: ${wrong}; ${String(unset)} is used`)
      else this.problem(name, wrong)
      return unset
    })
  }

  /** The text of a variable, whatever it is; `undefined` where it is not set. */
  text(name: string): Effect.Effect<string | undefined> {
    this.#names.add(name)
    return Config.option(Config.String(name))
      .parse(this.#provider)
      .pipe(
        Effect.orDie,
        Effect.map((value) => Option.getOrUndefined(value)?.trim() || undefined),
        Effect.map((value) => {
          if (value === undefined || !isServiceLink(name, value)) return value
          this.warnings.push(`${name} is not used: ${value.slice(0, 80)} is a service link of Kubernetes`)
          return undefined
        }),
      )
  }

  #secret<A>(name: string, codec: Codec<A>): Effect.Effect<A | undefined> {
    return Effect.map(Effect.all([this.text(name), this.text(`${name}_FILE`)]), ([inline, file]) => {
      if (inline !== undefined && file !== undefined)
        return this.problem(name, `set either ${name} or ${name}_FILE, not both`)
      const from = file === undefined ? name : `${name}_FILE`
      const read = file === undefined ? { content: inline } : readSecret(file)
      if ("problem" in read) return this.problem(from, read.problem)
      if (read.content === undefined) return undefined
      if (read.content === "")
        return this.problem(from, `expected a file with ${codec.expected}, got an empty one`)
      return codec.parse(read.content) ?? this.problem(from, `expected ${codec.expected}`)
    })
  }
}
