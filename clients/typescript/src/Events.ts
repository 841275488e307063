/** Logs decoded by the user's ABI. */
import type {
  Abi,
  AbiEvent,
  AbiParametersToPrimitiveTypes,
  ExtractAbiEvent,
  ExtractAbiEventNames,
} from "abitype"
import type { Hex, Log, RawBlock } from "./Entry.ts"
import { OptionError, textOf } from "./Errors.ts"
import type { EventTopic } from "./Filter.ts"

/** The value of an indexed parameter: the hash, if the type is dynamic. */
type IndexedType<Parameter> = Parameter extends { readonly type: infer Type }
  ? Type extends "string" | "bytes" | `${string}]` | "tuple"
    ? Hex
    : Parameter extends { readonly type: string }
      ? AbiParametersToPrimitiveTypes<readonly [Parameter & { readonly type: string }]>[0]
      : never
  : never

type ValueType<Parameter> = Parameter extends { readonly indexed: true }
  ? IndexedType<Parameter>
  : Parameter extends { readonly type: string }
    ? AbiParametersToPrimitiveTypes<readonly [Parameter]>[0]
    : never

type ArgsOf<Event extends AbiEvent> = {
  readonly [
    Parameter in Event["inputs"][number] as Parameter extends { readonly name: infer Name extends string }
      ? Name extends ""
        ? never
        : Name
      : never
  ]: ValueType<Parameter>
}

/** A decoded log of one of the ABI's events. */
export type Event<ABI extends Abi> = Abi extends ABI
  ? { readonly name: string; readonly args: Readonly<Record<string, unknown>>; readonly log: Log }
  : {
      readonly [Name in ExtractAbiEventNames<ABI>]: {
        readonly name: Name
        readonly args: ArgsOf<ExtractAbiEvent<ABI, Name>>
        readonly log: Log
      }
    }[ExtractAbiEventNames<ABI>]

/** A block as a handler gets it. */
export interface Block<ABI extends Abi = Abi> extends RawBlock {
  /** Its logs decoded by `events`; without those that are no encoding of their event. Empty without `events`. */
  readonly events: ReadonlyArray<Event<ABI>>
}

/** What the decoding needs of a library. */
interface Library {
  readonly topic0: (event: AbiEvent) => string
  /** Throws if the log is no encoding of the event. */
  readonly args: (event: AbiEvent, log: Log) => Readonly<Record<string, unknown>>
}

const ox = async (): Promise<Library> => {
  const { getSelector, decode } = await import("ox/AbiEvent")
  return {
    topic0: (event) => getSelector(event),
    args: (event, { topics, data }) =>
      (decode(event, { topics: topics as [Hex, ...Array<Hex>], data }) ?? {}) as Record<string, unknown>,
  }
}

const viem = async (): Promise<Library> => {
  const { toEventSelector, decodeEventLog } = await import("viem")
  return {
    topic0: (event) => toEventSelector(event),
    args: (event, { topics, data }) =>
      (decodeEventLog({ abi: [event], topics: topics as [Hex, ...Array<Hex>], data }).args ?? {}) as Record<
        string,
        unknown
      >,
  }
}

const isMissing = (error: unknown) => (error as { readonly code?: unknown }).code === "ERR_MODULE_NOT_FOUND"

const load = async (): Promise<Library> => {
  for (const library of [ox, viem]) {
    try {
      return await library()
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }
  throw new OptionError("events: decoding needs a library: npm install ox (or viem)")
}

export interface Decoder<ABI extends Abi> {
  readonly topics: ReadonlyArray<EventTopic>
  readonly decode: (block: RawBlock) => Block<ABI>
}

/** Makes the decoder of the events of an ABI. Without one, nothing is decoded, and no library is needed. */
export const makeDecoder = async <ABI extends Abi>(abi: ABI | undefined): Promise<Decoder<ABI>> => {
  if (abi === undefined) return { topics: [], decode: (block) => ({ ...block, events: [] }) }
  const events = abi.filter((item): item is AbiEvent => item.type === "event")
  if (events.length === 0) throw new OptionError("events: this ABI has no event")
  const anonymous = events.find((event) => event.anonymous === true)
  if (anonymous)
    throw new OptionError(`events: ${anonymous.name} is anonymous: its logs cannot be recognized`)
  const library = await load()
  const known = new Map<string, AbiEvent>()
  const topics: Array<EventTopic> = []
  for (const event of events) {
    let topic0: string
    try {
      topic0 = library.topic0(event)
    } catch (error) {
      throw new OptionError(`events: ${event.name}: ${textOf(error)}`)
    }
    const count = 1 + event.inputs.filter((input) => input.indexed === true).length
    if (known.has(`${topic0}:${count}`)) {
      throw new OptionError(
        `events: two events ${event.name} have the same types and the same number of topics`,
      )
    }
    known.set(`${topic0}:${count}`, event)
    topics.push({ topic0, topics: count })
  }
  return {
    topics,
    decode: (block) => ({
      ...block,
      events: block.logs.flatMap((log) => {
        const event = known.get(`${log.topics[0]}:${log.topics.length}`)
        if (event === undefined) return []
        try {
          return [{ name: event.name, args: library.args(event, log), log } as unknown as Event<ABI>]
        } catch {
          return []
        }
      }),
    }),
  }
}
