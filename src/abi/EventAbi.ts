/** Events as a chain's `EVENTS` define them: pure data that the filter and the decoder are derived from. */
import type { Hex } from "../Domain.ts"

/** A parameter of an event, or a component of a tuple, as in an ABI (its type with `uint` as `uint256`). */
export interface Parameter {
  readonly name?: string | undefined
  readonly type: string
  readonly indexed?: boolean | undefined
  readonly components?: ReadonlyArray<Parameter> | undefined
}

export interface EventAbi {
  readonly name: string
  /** The canonical signature, such as `Transfer(address,address,uint256)`. */
  readonly signature: string
  /** The keccak-256 hash of the signature. */
  readonly topic0: Hex
  readonly inputs: ReadonlyArray<Parameter>
}

/** What an ABI says of an event. */
export type Named = Pick<EventAbi, "name" | "inputs">

/** The events of a chain. Two of them may have one signature, if they differ in the number of indexed parameters. */
export interface EventAbis {
  readonly events: ReadonlyArray<EventAbi>
  /** Equal for equal events with equal names, whatever their order. It stands in the head of the journal (`abi`). */
  readonly digest: string
}

/** How many topics a log of this event has, topic0 included. */
export const topicCount = ({ inputs }: Pick<EventAbi, "inputs">): number =>
  1 + inputs.filter(({ indexed }) => indexed).length

/** A type in canonical form: a tuple is the list of its components' types. @param named with the components' names */
const typeText = ({ type, components = [] }: Parameter, named: boolean): string => {
  if (!type.startsWith("tuple")) return type
  const texts = components.map((one) => `${typeText(one, named)} ${(named && one.name) || ""}`.trim())
  return `(${texts.join(named ? ", " : ",")})${type.slice("tuple".length)}`
}

/** The canonical signature, as Solidity's ABI specification defines it. */
export const signatureOf = ({ name, inputs }: Named): string =>
  `${name}(${inputs.map((input) => typeText(input, false)).join()})`

/** An event with the names of its parameters, as the digest and the errors have it. */
export const textOf = ({ name, inputs }: Named): string => {
  const texts = inputs.map((input) =>
    `${typeText(input, true)}${input.indexed ? " indexed" : ""} ${input.name ?? ""}`.trim(),
  )
  return `${name}(${texts.join(", ")})`
}

const bits = Array.from({ length: 32 }, (_, i) => 8 * (i + 1)).join("|")

/** The types that can be decoded. Fixed-point numbers exist in the specification only, and no value has length 0. */
const validType = new RegExp(
  `^(address|bool|string|function|tuple|bytes([1-9]|[12]\\d|3[0-2])?|u?int(${bits}))(\\[([1-9]\\d*)?\\])*$`,
)

const invalidType = ({ type, components }: Parameter): string | undefined => {
  const isTuple = type.startsWith("tuple")
  if (!validType.test(type) || (isTuple && !components?.length)) return type
  for (const component of isTuple ? components! : []) {
    const invalid = invalidType(component)
    if (invalid !== undefined) return invalid
  }
  return undefined
}

/** Why an event cannot be used; `undefined` if it can. */
export const problemOf = (event: Named, isAnonymous: boolean): string | undefined => {
  const what = textOf(event)
  if (isAnonymous) return `${what} is anonymous: its logs have no topic that identifies them`
  if (!/^[a-zA-Z$_][\w$]*$/.test(event.name)) return `${what} has no valid name`
  if (topicCount(event) > 4) return `${what} has more than 3 indexed parameters`
  const invalid = event.inputs.map(invalidType).find((type) => type !== undefined)
  return invalid === undefined ? undefined : `${what} has the type ${invalid}, which cannot be decoded`
}

/**
 * Drops repeated events, and finds two whose logs cannot be distinguished: the same signature and the same number of topics.
 *
 * @returns the events, or the two
 */
export const distinct = <Event extends Named>(
  events: ReadonlyArray<Event>,
): ReadonlyArray<Event> | { readonly ambiguous: readonly [string, string] } => {
  const known = new Map<string, Event>()
  for (const event of events) {
    const key = `${topicCount(event)} ${signatureOf(event)}`
    const other = known.get(key)
    if (other !== undefined && textOf(other) !== textOf(event))
      return { ambiguous: [textOf(other), textOf(event)] }
    known.set(key, event)
  }
  return [...known.values()]
}
