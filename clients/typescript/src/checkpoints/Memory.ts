/** A checkpoint in memory: the next process begins at `from` again. */
import type { Checkpoint, DeadLetter, ReaderId } from "../Checkpoint.ts"
import type { PackedBlock, Position } from "../Position.ts"

/** Keeps the state in memory: at least once, and only while this process runs. */
export const memory = (): Checkpoint<undefined> & { readonly deadLetters: ReadonlyArray<DeadLetter> } => {
  const states = new Map<string, { position: Position; readonly blocks: Map<number, PackedBlock> }>()
  const deadLetters: Array<DeadLetter> = []
  const keyOf = ({ name, chain }: ReaderId) => `${chain}:${name}`
  return {
    deadLetters,
    atLeastOnce: true,
    transaction: (run) => run(undefined),
    load: async (_, reader) => states.get(keyOf(reader))?.position,
    blocks: async (_, reader) =>
      [...(states.get(keyOf(reader))?.blocks.values() ?? [])].sort((a, b) => a.number - b.number),
    save: async (_, reader, { position, remove, put }) => {
      const state = states.get(keyOf(reader)) ?? { position, blocks: new Map() }
      state.position = position
      for (const number of remove) state.blocks.delete(number)
      for (const block of put) state.blocks.set(block.number, block)
      states.set(keyOf(reader), state)
    },
    deadLetter: async (_, __, letter) => void deadLetters.push(letter),
  }
}
