/** The blocks of a chain as an iteration, for a caller that commits by itself. */
import type { Abi } from "abitype"
import { Consumer, openSource } from "./Consumer.ts"
import { ConsumerError, OptionError } from "./Errors.ts"
import type { Block } from "./Events.ts"
import { checkCommon } from "./Options.ts"
import type { CommonOptions } from "./Options.ts"
import type { State } from "./Position.ts"
import { Superseded } from "./Session.ts"

/** A block to apply, or one to undo. */
export interface Change<ABI extends Abi = Abi, Tx = unknown> {
  readonly type: "apply" | "undo"
  readonly block: Block<ABI>
  /**
   * Stores the position after this change: it, and what came before, is not delivered again.
   *
   * @param tx a transaction of the checkpoint in which the change was applied; without it, one of its own
   * @throws ConsumerError if another process of this name reads now: the changes since the last commit are delivered there
   */
  readonly commit: (tx?: Tx) => Promise<void>
}

/** The options of `changes`. One chain: each has its own order. */
export type ChangesOptions<ABI extends Abi, Tx> = CommonOptions<ABI, Tx>

const takenOver = (name: string) =>
  new ConsumerError("TAKEN_OVER", `another process reads as ${name} now: begin to iterate again, to stand by`)

async function* iterate<ABI extends Abi, Tx>(
  chain: number,
  options: ChangesOptions<ABI, Tx>,
  signal: AbortSignal,
): AsyncGenerator<Change<ABI, Tx>, void, undefined> {
  const consumer = await Consumer.open(chain, options, signal, openSource)
  const { session, telemetry } = consumer
  try {
    const acquired = await consumer.acquire()
    if (acquired === undefined) return
    let [state, saved]: [State, State] = [acquired, acquired]
    let delivered = acquired
    while (!signal.aborted) {
      const found = await consumer.next(state)
      if (found === undefined) return
      for (const [i, step] of found.steps.entries()) {
        const after: State =
          i === found.steps.length - 1 ? found.state : { position: step.position, stack: step.stack }
        delivered = after
        const commit = async (tx?: Tx) => {
          const save = (tx: Tx) => session.save(tx, after)
          await (tx === undefined ? session.transaction(save) : save(tx))
          saved = after
          telemetry.done(step)
        }
        yield { type: step.kind, block: consumer.decode(step.block), commit }
        if (signal.aborted) return
      }
      state = found.state
      // Only what was committed is saved on the way.
      if (saved === delivered) {
        saved = await consumer.rest(found, saved)
        delivered = saved
      } else {
        await consumer.rest({ ...found, state: saved }, saved)
      }
    }
  } catch (error) {
    throw error instanceof Superseded ? takenOver(options.name) : error
  } finally {
    await consumer.close()
  }
}

/**
 * The changes of one chain, in order: each block with logs that match, and each that a reorg replaced. What is not committed is
 * delivered again to the next iteration.
 *
 * @throws ConsumerError, whose message says what to do
 */
export const changes = <const ABI extends Abi = Abi, Tx = unknown>(
  options: ChangesOptions<ABI, Tx>,
): AsyncIterable<Change<ABI, Tx>> => {
  const [chain, ...others] = checkCommon(options)
  if (others.length > 0) throw new OptionError("changes: one chain, because each has its own order")
  return {
    [Symbol.asyncIterator]: () => {
      const left = new AbortController()
      const signal =
        options.signal === undefined ? left.signal : AbortSignal.any([options.signal, left.signal])
      const iterator = iterate(chain!, options, signal)
      return {
        next: () => iterator.next(),
        // A reader that waits for the next block is woken up.
        return: async () => {
          left.abort()
          return iterator.return()
        },
      }
    },
  }
}
