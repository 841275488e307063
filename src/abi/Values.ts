/**
 * The values of an event: each type with the type that the library decodes it as, and its JSON.
 *
 * Values are checked as strictly as Solidity's own decoder does: a value that is not of its type, such as an address with more
 * than 20 bytes, throws. Libraries drop the surplus instead. Hence integers, addresses and `bytesN` are decoded as whole words,
 * and a `string` as `bytes`.
 */
import type { Parameter } from "./EventAbi.ts"

/** A parameter as the library decodes it. Without names, a tuple becomes an array, whatever its components are called. */
export interface WireParameter {
  readonly type: string
  readonly components?: ReadonlyArray<WireParameter>
}

export interface Type {
  readonly wire: WireParameter
  /** The JSON of a decoded value, in ASCII. Throws if the value is not of this type. */
  readonly json: (value: never) => string
  /** The size of its head (bytes): a dynamic value has an offset there, and the value itself elsewhere. */
  readonly headSize: number
  readonly isDynamic: boolean
  /** What a dynamic value consists of. */
  readonly parts: ReadonlyArray<Type> | { readonly item: Type; readonly length: number | undefined }
}

const wordSize = 32

const invalid = (type: string): never => {
  throw new RangeError(`no valid ${type}`)
}

/** JSON of a text, with an escape for each character beyond ASCII: one character is one byte in every store. */
export const asciiJson = (text: string): string =>
  JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  )

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const text = (bytes: string): string => asciiJson(utf8.decode(Buffer.from(bytes.slice(2), "hex")))

const word = (type: string, json: (value: never) => string): Type => ({
  wire: { type },
  json,
  headSize: wordSize,
  isDynamic: false,
  parts: [],
})

const bytes = (json: (value: string) => string): Type => ({ ...word("bytes", json), isDynamic: true })

const integer = (type: string): Type => {
  const bits = Number(/\d+/.exec(type)![0])
  const isSigned = type.startsWith("int")
  const cut = isSigned ? BigInt.asIntN : BigInt.asUintN
  return word(isSigned ? "int256" : "uint256", (value: bigint) =>
    cut(bits, value) === value ? `"${value}"` : invalid(type),
  )
}

/** `bytesN`, which is at the beginning of its word. @param size how many bytes */
const fixedBytes = (type: string, size: number): Type => {
  const end = 2 + 2 * size
  const padding = "0".repeat(2 * (wordSize - size))
  return word("bytes32", (value: string) =>
    value.slice(end) === padding ? `"${value.slice(0, end)}"` : invalid(type),
  )
}

/** The first 12 of the 32 bytes of an address. */
const addressPadding = `0x${"0".repeat(24)}`

const address = word("bytes32", (value: string) =>
  value.startsWith(addressPadding) ? `"0x${value.slice(addressPadding.length)}"` : invalid("address"),
)

const elementary = (type: string): Type => {
  if (type === "address") return address
  if (type === "bool") return word(type, (value: boolean) => String(value))
  if (type === "string") return bytes(text)
  if (type === "bytes") return bytes((value) => `"${value}"`)
  // A contract's address and a selector.
  if (type === "function") return fixedBytes(type, 24)
  return type.startsWith("bytes") ? fixedBytes(type, Number(type.slice("bytes".length))) : integer(type)
}

/** The names of parameters, each one once: one without a name is `arg` and its place, and a repeated one gets a suffix. */
const uniqueNames = (parameters: ReadonlyArray<Parameter>): ReadonlyArray<string> => {
  const names = new Set<string>()
  for (const [i, { name }] of parameters.entries()) {
    const wanted = name || `arg${i}`
    let unique = wanted
    for (let n = 2; names.has(unique); n++) unique = `${wanted}_${n}`
    names.add(unique)
  }
  return [...names]
}

/** The keys of parameters in a JSON object, with the colon. */
export const keysOf = (parameters: ReadonlyArray<Parameter>): ReadonlyArray<string> =>
  uniqueNames(parameters).map((name) => `${asciiJson(name)}:`)

const sizeOf = (types: ReadonlyArray<Type>) => types.reduce((sum, { headSize }) => sum + headSize, 0)

const tuple = (components: ReadonlyArray<Parameter>): Type => {
  const parts = components.map(typeOf)
  const keys = keysOf(components)
  const isDynamic = parts.some((part) => part.isDynamic)
  return {
    wire: { type: "tuple", components: parts.map(({ wire }) => wire) },
    json: (values: ReadonlyArray<never>) =>
      `{${values.map((value, i) => keys[i] + parts[i]!.json(value)).join()}}`,
    headSize: isDynamic ? wordSize : sizeOf(parts),
    isDynamic,
    parts,
  }
}

/** @param length `undefined`: it is part of the value */
const array = (item: Type, length: number | undefined): Type => {
  const isDynamic = item.isDynamic || length === undefined
  return {
    wire: { ...item.wire, type: `${item.wire.type}[${length ?? ""}]` },
    json: (values: ReadonlyArray<never>) => `[${values.map(item.json).join()}]`,
    headSize: isDynamic ? wordSize : item.headSize * length!,
    isDynamic,
    parts: { item, length },
  }
}

export const typeOf = (parameter: Parameter): Type => {
  const { type, components = [] } = parameter
  const [, item, length] = /^(.*)\[(\d*)\]$/.exec(type) ?? []
  if (item !== undefined)
    return array(typeOf({ ...parameter, type: item }), length ? Number(length) : undefined)
  return type === "tuple" ? tuple(components) : elementary(type)
}

/** Whether an array of dynamic values is part of the type: their offsets may all lead to the same long value. */
export const mayRepeat = ({ parts }: Type): boolean =>
  "item" in parts ? parts.item.isDynamic || mayRepeat(parts.item) : parts.some(mayRepeat)

/** Throws if the values of these types overlap in the data: their JSON could be a thousand times larger than the data. */
export const assertDisjoint = (types: ReadonlyArray<Type>, hex: string): void => {
  const data = Buffer.from(hex.slice(2), "hex")
  let left = data.length
  const spend = (size: number) => {
    left -= size
    if (left < 0) throw new RangeError("the values overlap")
  }
  const numberAt = (at: number) => {
    if (at + wordSize > data.length) throw new RangeError("the data is too short")
    for (let i = at; i < at + 26; i++) if (data[i] !== 0) throw new RangeError("an offset beyond the data")
    return data.readUIntBE(at + 26, 6)
  }
  const visitAll = (types: ReadonlyArray<Type>, base: number) => {
    spend(sizeOf(types))
    let at = base
    for (const type of types) {
      visit(type, at, base)
      at += type.headSize
    }
  }
  const visit = ({ isDynamic, parts }: Type, at: number, base: number) => {
    if (!isDynamic) return
    const start = base + numberAt(at)
    if (!("item" in parts)) {
      if (parts.length > 0) visitAll(parts, start)
      else spend(wordSize + numberAt(start))
      return
    }
    const { item, length } = parts
    const from = length === undefined ? start + wordSize : start
    const count = length ?? numberAt(start)
    spend(from - start + count * item.headSize)
    if (!item.isDynamic) return
    for (let i = 0; i < count; i++) visit(item, from + i * item.headSize, from)
  }
  visitAll(types, 0)
}
