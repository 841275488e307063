/** Frames recorded from real nodes. */
import { readFileSync } from "node:fs"

export const nodes = ["anvil", "ganache", "hardhat", "geth-1.8.23"] as const

export type RecordedNode = (typeof nodes)[number]

export const read = (node: RecordedNode, file: string): unknown =>
  JSON.parse(readFileSync(new URL(`../fixtures/frames/${node}/${file}.json`, import.meta.url), "utf8"))

/** Every object in a recording that satisfies `wanted`, at any depth. */
export const find = <A>(
  value: unknown,
  wanted: (object: Record<string, unknown>) => boolean,
): ReadonlyArray<A> => {
  if (Array.isArray(value)) return value.flatMap((item) => find<A>(item, wanted))
  if (value === null || typeof value !== "object") return []
  const object = value as Record<string, unknown>
  if (wanted(object)) return [object as A]
  return Object.values(object).flatMap((item) => find<A>(item, wanted))
}

export const logsIn = (value: unknown): ReadonlyArray<Record<string, unknown>> =>
  find(value, (object) => "logIndex" in object && "topics" in object && object["blockHash"] !== null)

export const headersIn = (value: unknown): ReadonlyArray<Record<string, unknown>> =>
  find(
    value,
    (object) =>
      object["hash"] != null && object["number"] != null && "parentHash" in object && "logsBloom" in object,
  )
