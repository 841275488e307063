/** A head as it is stored: fields of a hash in Redis, columns in SQLite, under the same names. */
import type { Hex } from "../Domain.ts"
import type { Journal, Position } from "./Journal.ts"

type Value = string | number | null | undefined

export interface StoredHead {
  readonly number: Value
  readonly hash: Value
  readonly part: Value
  readonly part_digest: Value
  readonly added: Value
  readonly final_number: Value
  readonly final_hash: Value
  readonly start_number: Value
  readonly start_hash: Value
  readonly filter: Value
  readonly filter_since: Value
}

/** What precedes a stored digest: it belongs to this part, written as the last of so many entries. See common.lua. */
export const digestMark = ({ hash, part, added }: Pick<StoredHead, "hash" | "part" | "added">): string =>
  `${hash}:${part}:${added}:`

const positionOf = (head: StoredHead): Position => {
  const { number, hash, part, part_digest: stored } = head
  const [mark, digest] = [digestMark(head), String(stored ?? "")]
  const position = { number: Number(number), hash: hash as Hex | "", part: Number(part) }
  return digest.startsWith(mark) ? { ...position, digest: digest.slice(mark.length) } : position
}

export const journalOf = (head: StoredHead, window: Journal["window"]): Journal => ({
  head: positionOf(head),
  final: head.final_hash ? { number: Number(head.final_number), hash: head.final_hash as Hex } : undefined,
  start: { number: Number(head.start_number), hash: head.start_hash as Hex | "" },
  filter: String(head.filter ?? ""),
  filterSince: Number(head.filter_since),
  window,
})
