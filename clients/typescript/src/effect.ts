/** The changes of a chain as a Stream of the user's Effect. */
import type { Abi } from "abitype"
import { Effect, Stream } from "effect"
import { changes as iterable } from "./Changes.ts"
import type { Change as AsyncChange, ChangesOptions } from "./Changes.ts"
import { ConsumerError, textOf } from "./Errors.ts"
import type { Block } from "./Events.ts"

/** A block to apply, or one to undo. */
export interface Change<ABI extends Abi = Abi, Tx = unknown> {
  readonly type: "apply" | "undo"
  readonly block: Block<ABI>
  /** Stores the position after this change, as `commit` of `changes` does. @param tx an open transaction of the checkpoint */
  readonly commit: (tx?: Tx) => Effect.Effect<void, ConsumerError>
}

const toError = (error: unknown): ConsumerError =>
  error instanceof ConsumerError ? error : new ConsumerError("UNEXPECTED", textOf(error), { cause: error })

const ofAsync = <ABI extends Abi, Tx>({ type, block, commit }: AsyncChange<ABI, Tx>): Change<ABI, Tx> => ({
  type,
  block,
  commit: (tx) => Effect.tryPromise({ try: () => commit(tx), catch: toError }),
})

/** The changes of one chain, in order. What is not committed is delivered again to the next run of the stream. */
export const changes = <const ABI extends Abi = Abi, Tx = unknown>(
  options: ChangesOptions<ABI, Tx>,
): Stream.Stream<Change<ABI, Tx>, ConsumerError> =>
  Stream.suspend(() => {
    try {
      return Stream.map(Stream.fromAsyncIterable(iterable(options), toError), ofAsync)
    } catch (error) {
      return Stream.fail(toError(error))
    }
  })
