/** Where a reader's state is stored: with what it applied, in one transaction, if the store has transactions. */
import type { PackedBlock, Position } from "./Position.ts"

/** Whose state: a name, and a chain. */
export interface ReaderId {
  readonly name: string
  readonly chain: number
}

/** What a transaction changes: the position, and applied blocks by their numbers. */
export interface Save {
  readonly position: Position
  /** The numbers of blocks to delete: retracted, or final by now. Deleted before `put` is written. */
  readonly remove: ReadonlyArray<number>
  readonly put: ReadonlyArray<PackedBlock>
}

/** A block that was skipped because its handler failed. */
export interface DeadLetter {
  readonly kind: "apply" | "undo"
  readonly number: number
  readonly hash: string
  readonly error: string
  /** The block with its logs, as JSON. */
  readonly data: string
}

/**
 * A store of states. `Tx` is what a handler gets to write by.
 *
 * A transaction applies all of its writes or none. A checkpoint whose store has no transactions with the handler's writes is
 * `atLeastOnce`: it saves after the handler, which may run again for the same block.
 */
export interface Checkpoint<Tx = unknown> {
  readonly atLeastOnce: boolean
  /** Runs in a transaction, and commits it if the promise resolves. */
  readonly transaction: <A>(run: (tx: Tx) => Promise<A>) => Promise<A>
  /** Reads the position, and locks it until the transaction ends; `undefined` before the first save. */
  readonly load: (tx: Tx, reader: ReaderId) => Promise<Position | undefined>
  /** Reads the applied blocks, lowest first. */
  readonly blocks: (tx: Tx, reader: ReaderId) => Promise<ReadonlyArray<PackedBlock>>
  readonly save: (tx: Tx, reader: ReaderId, save: Save) => Promise<void>
  readonly deadLetter: (tx: Tx, reader: ReaderId, letter: DeadLetter) => Promise<void>
}

const repeatable: ReadonlySet<unknown> = new Set(["40001", "40P01", "P2034"])

/** Whether the database asks to repeat the transaction: a serialization failure or a deadlock. */
export const isSerializationFailure = (error: unknown): boolean => {
  for (let at: unknown = error, i = 0; at !== undefined && at !== null && i < 5; i++) {
    const { code, meta, cause } = at as {
      readonly code?: unknown
      readonly meta?: { readonly code?: unknown }
      readonly cause?: unknown
    }
    // Prisma has a code of its own for both, and puts that of a raw query into `meta`.
    for (const one of [code, meta?.code]) if (repeatable.has(one)) return true
    at = cause
  }
  return false
}
