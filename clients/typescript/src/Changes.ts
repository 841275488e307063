/** The blocks of a chain as an iteration, for a caller that commits by itself. */
import type { Abi } from "abitype"
import { Consumer, openSource } from "./Consumer.ts"
import { ConsumerError, OptionError } from "./Errors.ts"
import type { Block } from "./Events.ts"
import { checkCommon } from "./Options.ts"
import type { CommonOptions } from "./Options.ts"
import type { Step } from "./Plan.ts"
import type { State } from "./Position.ts"
import { Superseded, isSame } from "./Session.ts"
import type { Session } from "./Session.ts"

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

/** The commits of an iteration. Changes have serial numbers from 1 on. */
class Commits<Tx> {
  readonly #session: Session<Tx>
  readonly #name: string
  readonly #atLeastOnce: boolean
  /** What was saved, or may have been: a transaction of the caller may be rolled back later. */
  #attempts: ReadonlyArray<{ readonly serial: number; readonly state: State }>

  constructor(session: Session<Tx>, { name, checkpoint }: ChangesOptions<never, Tx>, acquired: State) {
    this.#session = session
    this.#name = name
    this.#atLeastOnce = checkpoint.atLeastOnce
    this.#attempts = [{ serial: 0, state: acquired }]
  }

  /** The last change that was committed, if no transaction was rolled back, and the state after it. */
  get last() {
    return this.#attempts.at(-1)!
  }

  /** Stores the state after a change, unless that of a later one is stored. */
  async commit(serial: number, state: State, tx: Tx | undefined): Promise<void> {
    const save = async (tx: Tx) => {
      const stored = await this.#session.current(tx)
      const base = this.#attempts.findLast((attempt) => isSame(attempt.state, stored))?.serial ?? 0
      if (!this.#atLeastOnce) {
        if (base >= serial) return
        if (this.#attempts.some((attempt) => attempt.serial > base && attempt.serial < serial))
          throw new ConsumerError(
            "ROLLED_BACK",
            "the transaction of an earlier change was rolled back, so that its block is not stored: begin to iterate again",
          )
      }
      await this.#session.save(tx, state)
    }
    if (this.#atLeastOnce && this.last.serial >= serial) return
    try {
      await (tx === undefined ? this.#session.transaction(save) : save(tx))
    } catch (error) {
      throw error instanceof Superseded ? takenOver(this.#name) : error
    }
    if (serial >= this.last.serial)
      this.#attempts = [...this.#attempts.slice(-keptAttempts), { serial, state }]
  }

  /** Replaces the state after the last change: entries that need no handler were read meanwhile. */
  advance(state: State): void {
    this.#attempts = [...this.#attempts, { serial: this.last.serial, state }].slice(-keptAttempts)
  }
}

/** More attempts than a caller has transactions open at once. */
const keptAttempts = 100

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
    const commits = new Commits<Tx>(session, options as never, acquired)
    let state = acquired
    let delivered = 0
    let uncommitted: Array<Step> = []
    while (!signal.aborted) {
      const found = await consumer.next(state, commits.last.state)
      if (found === undefined) return
      for (const [i, step] of found.steps.entries()) {
        const after: State =
          i === found.steps.length - 1 ? found.state : { position: step.position, stack: step.stack }
        if (commits.last.serial === delivered) uncommitted = []
        const serial = ++delivered
        if (options.checkpoint.atLeastOnce) {
          uncommitted.push(step)
          await consumer.retrying(() => session.announce(commits.last.state, uncommitted))
        }
        const commit = async (tx?: Tx) => {
          await commits.commit(serial, after, tx)
          telemetry.done(step)
        }
        yield { type: step.kind, block: consumer.decode(step.block), commit }
        if (signal.aborted) return
      }
      state = found.state
      // Only what was committed is saved on the way.
      const { serial, state: saved } = commits.last
      if (serial === delivered) {
        const rested = await consumer.rest(found, saved)
        if (rested !== saved) commits.advance(rested)
      } else await consumer.rest({ ...found, state: saved }, saved)
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
