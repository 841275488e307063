/** Loads the decoder only where events are configured: the library is most of its cost. */
import { Effect } from "effect"
import type { Block } from "../Domain.ts"
import type { EventAbis } from "./EventAbi.ts"

/** Adds `event` and `args` to the logs of a block. */
export type DecodeBlock = (block: Block) => Block

export const decoderOf = (abis: EventAbis | undefined): Effect.Effect<DecodeBlock | undefined> =>
  abis === undefined
    ? Effect.succeed(undefined)
    : Effect.map(
        Effect.promise(() => import("./Decoder.ts")),
        ({ make }) => make(abis),
      )
