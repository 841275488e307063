/** Logs of random events, encoded by viem and decoded by ours. */
import { assert, describe, it } from "@effect/vitest"
import { formatAbiItem } from "abitype"
import { Effect } from "effect"
import { encodeAbiParameters, toEventSelector } from "viem"
import type { AbiEvent, AbiParameter } from "viem"
import { make } from "../../../src/abi/Decoder.ts"
import { parseEvents } from "../../../src/config/EventsParser.ts"
import type { Hex, Log } from "../../../src/Domain.ts"
import { block, log as plainLog } from "../../support/blocks.ts"
import { Dice } from "../../support/mutate.ts"

/** A value as viem encodes it, and as `args` must show it. */
interface Sample {
  readonly value: unknown
  readonly shown: unknown
}

type Input = AbiParameter & { readonly indexed?: boolean; readonly components?: ReadonlyArray<Input> }

const hexOf = (dice: Dice, size: number): Hex =>
  `0x${Array.from({ length: size }, () => dice.roll(256).toString(16).padStart(2, "0")).join("")}`

const bits = (dice: Dice) => 8 * (1 + dice.roll(32))

const names = ["from", "to", "a", "a_2", ""]

const typeOf = (dice: Dice, depth: number): Input => {
  const name = dice.pick(names)
  const kind = dice.roll(depth > 0 ? 9 : 6)
  const one = { ...(name !== "" && { name }) }
  if (kind === 0) return { ...one, type: "address" }
  if (kind === 1) return { ...one, type: "bool" }
  if (kind === 2) return { ...one, type: `uint${bits(dice)}` }
  if (kind === 3) return { ...one, type: `int${bits(dice)}` }
  if (kind === 4) return { ...one, type: `bytes${1 + dice.roll(32)}` }
  if (kind === 5) return { ...one, type: dice.pick(["string", "bytes"]) }
  if (kind === 6) {
    const components = Array.from({ length: 1 + dice.roll(3) }, () => typeOf(dice, depth - 1))
    return { ...one, type: "tuple", components }
  }
  const item = typeOf(dice, depth - 1)
  const { name: _, ...unnamed } = item
  return { ...unnamed, ...one, type: `${item.type}[${kind === 7 ? "" : 1 + dice.roll(3)}]` } as Input
}

const texts = ["", "x", "Grüße, 世界 🌍", '"\\\n\u0000', "a".repeat(70)]

const keysOf = (inputs: ReadonlyArray<Input>) => {
  const keys: Array<string> = []
  for (const [i, { name }] of inputs.entries()) {
    let key = name ?? `arg${i}`
    for (let n = 2; keys.includes(key); n++) key = `${name ?? `arg${i}`}_${n}`
    keys.push(key)
  }
  return keys
}

const sampleOf = (dice: Dice, input: Input): Sample => {
  const { type, components = [] } = input
  const [, item, length] = /^(.*)\[(\d*)\]$/.exec(type) ?? []
  if (item !== undefined) {
    const count = length ? Number(length) : dice.roll(4)
    const samples = Array.from({ length: count }, () => sampleOf(dice, { ...input, type: item } as Input))
    return { value: samples.map(({ value }) => value), shown: samples.map(({ shown }) => shown) }
  }
  if (type === "tuple") {
    const samples = components.map((component) => sampleOf(dice, component))
    // viem takes a tuple as an array only if a component has no name; positions are set as names too.
    const isUnnamed = components.some(({ name }) => name === undefined)
    const value = isUnnamed
      ? samples.map(({ value }) => value)
      : Object.fromEntries(components.map(({ name }, i) => [name, samples[i]!.value]))
    return { value, shown: Object.fromEntries(keysOf(components).map((key, i) => [key, samples[i]!.shown])) }
  }
  if (type === "bool") {
    const value = dice.roll(2) === 0
    return { value, shown: value }
  }
  if (type === "string") {
    const value = dice.pick(texts)
    return { value, shown: value }
  }
  if (type === "address") {
    const value = hexOf(dice, 20)
    return { value, shown: value }
  }
  if (type.startsWith("bytes")) {
    const value = hexOf(dice, type === "bytes" ? dice.roll(70) : Number(type.slice(5)))
    return { value, shown: value }
  }
  const size = Number(/\d+/.exec(type)![0])
  const any = BigInt(hexOf(dice, size / 8))
  const value = type.startsWith("int") ? BigInt.asIntN(size, any) : any
  return { value: size > 48 ? value : Number(value), shown: String(value) }
}

/** A tuple with repeated names cannot be given to viem as an object. */
const isEncodable = (inputs: ReadonlyArray<Input>): boolean =>
  inputs.every(({ components = [] }) => {
    const named = components.map(({ name }) => name)
    const isClear = named.includes(undefined) || new Set(named).size === named.length
    return isClear && isEncodable(components)
  })

const eventOf = (dice: Dice): AbiEvent => {
  const inputs = Array.from({ length: dice.roll(5) }, () => typeOf(dice, 2))
  let indexed = 0
  return {
    type: "event",
    name: dice.pick(["Moved", "Moved2"]),
    inputs: inputs.map((input) =>
      dice.roll(5) < 2 && indexed++ < 3 ? { ...input, indexed: true } : input,
    ) as AbiEvent["inputs"],
  }
}

const isReference = ({ type }: Input) => /\]$|^(tuple|string|bytes)$/.test(type)

/** A log of the event, and the arguments that it has. */
const logOf = (dice: Dice, event: AbiEvent) => {
  const inputs = event.inputs as ReadonlyArray<Input>
  const topics: Array<Hex> = [toEventSelector(event)]
  const shown: Record<string, unknown> = {}
  const [types, values]: [Array<Input>, Array<unknown>] = [[], []]
  const keys = keysOf(inputs)
  for (const [i, input] of inputs.entries()) {
    const sample = sampleOf(dice, input)
    shown[keys[i]!] = sample.shown
    if (!input.indexed) {
      types.push(input)
      values.push(sample.value)
    } else if (isReference(input)) {
      const hash = hexOf(dice, 32)
      topics.push(hash)
      shown[keys[i]!] = { hash }
    } else topics.push(encodeAbiParameters([input], [sample.value]))
  }
  const log = { topics, data: encodeAbiParameters(types, values) } as Pick<Log, "topics" | "data">
  return { log, shown }
}

describe("decoded events", () => {
  it.effect("show what another library has encoded, for random events with overloaded names", () =>
    Effect.gen(function* () {
      let decoded = 0
      for (let seed = 1; seed <= 400; seed++) {
        const dice = new Dice(seed)
        const events = Array.from({ length: 1 + dice.roll(4) }, () => eventOf(dice)).filter(({ inputs }) =>
          isEncodable(inputs as ReadonlyArray<Input>),
        )
        const known = new Map(
          events.map((event) => [
            `${toEventSelector(event)} ${event.inputs.filter(({ indexed }) => indexed).length}`,
            event,
          ]),
        )
        if (known.size === 0) continue
        const text = [...known.values()].map((event) => formatAbiItem(event).slice("event ".length)).join(";")
        const decode = make(yield* parseEvents(text))
        const samples = [...known.values()].map((event) => logOf(dice, event))
        const logs = samples.map(({ log }, index): Log => ({ ...plainLog("0x", index), ...log }))
        for (const [i, { args, event }] of decode({ ...block(1, "a", 0), logs }).logs.entries()) {
          const context = `seed ${seed}: ${text}`
          assert.isDefined(args, context)
          assert.deepStrictEqual(JSON.parse(args!), samples[i]!.shown, context)
          assert.deepStrictEqual(Object.keys(JSON.parse(args!)), Object.keys(samples[i]!.shown), context)
          assert.match(args!, /^[\x20-\x7e]*$/)
          assert.match(event!, /^Moved2?\(/)
          decoded++
        }
      }
      assert.isAbove(decoded, 800)
    }),
  )
})
