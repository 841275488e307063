/**
 * Decodes logs by the events of a chain: `event` (the canonical signature that topic0 is the hash of) and `args` (JSON by name).
 * This file is loaded only where `EVENTS` is set.
 */
import * as AbiParameters from "ox/AbiParameters"
import type { Hex, Log } from "../Domain.ts"
import { topicCount } from "./EventAbi.ts"
import type { EventAbi, EventAbis } from "./EventAbi.ts"
import type { DecodeBlock } from "./LoadDecoder.ts"
import { assertDisjoint, keysOf, mayRepeat, typeOf } from "./Values.ts"
import type { Type } from "./Values.ts"

type Decode = (data: Hex) => ReadonlyArray<never>

/** Decodes values of these types. Throws if the data is too short, or not an encoding of them. */
const decoderOf = (types: ReadonlyArray<Type>): Decode => {
  if (types.length === 0) return () => []
  const wires = types.map(({ wire }) => wire)
  const isRepeating = types.some(mayRepeat)
  return (data) => {
    if (isRepeating) assertDisjoint(types, data)
    return AbiParameters.decode(wires, data, { checksumAddress: false }) as unknown as ReadonlyArray<never>
  }
}

/** The JSON of a log's arguments. Throws if the log cannot be decoded. */
type Args = (log: Pick<Log, "topics" | "data">) => string

/** The type of a topic: if it is no single word, the topic is the hash of the value. */
const topicType = (type: Type): Type => {
  if (!type.isDynamic && !("item" in type.parts) && type.parts.length === 0) return type
  const hash = typeOf({ type: "bytes32" })
  return { ...hash, json: (value) => `{"hash":${hash.json(value)}}` }
}

const argsOf = ({ inputs }: EventAbi): Args => {
  const keys = keysOf(inputs)
  const types = inputs.map((input) => ({ type: typeOf(input), isIndexed: input.indexed === true }))
  const ofTopics = types.filter(({ isIndexed }) => isIndexed).map(({ type }) => topicType(type))
  const ofData = types.filter(({ isIndexed }) => !isIndexed).map(({ type }) => type)
  const fromTopics = decoderOf(ofTopics)
  const fromData = decoderOf(ofData)
  return ({ topics, data }) => {
    const words = fromTopics(
      `0x${topics
        .slice(1)
        .map((topic) => topic.slice(2))
        .join("")}`,
    )
    const values = fromData(data)
    let [word, value] = [0, 0]
    const members = types.map(({ isIndexed }, i) => {
      const json = isIndexed ? ofTopics[word]!.json(words[word++]!) : ofData[value]!.json(values[value++]!)
      return keys[i]! + json
    })
    return `{${members.join()}}`
  }
}

/**
 * Makes the function that decodes the logs of a block.
 *
 * A log whose topic0 is known always gets `event`. It gets no `args` if no variant of the event has its number of topics, if its
 * values are not of the declared types, or if a string is not valid UTF-8.
 */
export const make = ({ events, digest }: EventAbis): DecodeBlock => {
  const known = new Map<Hex, { readonly signature: string; readonly args: Array<Args | undefined> }>()
  for (const event of events) {
    const { topic0, signature } = event
    const variants = known.get(topic0) ?? { signature, args: [] }
    variants.args[topicCount(event)] = argsOf(event)
    known.set(topic0, variants)
  }
  const decoded = (log: Log): Log => {
    const found = known.get(log.topics[0]!)
    if (found === undefined) return log
    const { signature: event, args: variants } = found
    try {
      const args = variants[log.topics.length]?.(log)
      return args === undefined ? { ...log, event } : { ...log, event, args }
    } catch {
      return { ...log, event }
    }
  }
  return (block) => ({ ...block, abi: digest, logs: block.logs.map(decoded) })
}
