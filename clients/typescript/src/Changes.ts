/** The blocks of a chain as an iteration, for a caller that commits by itself. */
import type { Abi } from "abitype"
import { Consumer, openSource, pause } from "./Consumer.ts"
import type { Delivery, OpenSource } from "./Consumer.ts"
import { ConsumerError, OptionError } from "./Errors.ts"
import type { Block } from "./Events.ts"
import { checkCommon } from "./Options.ts"
import type { CommonOptions } from "./Options.ts"
import type { State } from "./Position.ts"
import { Superseded, kept, marked } from "./Session.ts"
import type { Saved } from "./Session.ts"

/** A block to apply, or one to undo. */
export interface Change<ABI extends Abi = Abi, Tx = unknown> {
  readonly type: "apply" | "undo"
  readonly block: Block<ABI>
  /**
   * Stores the position after this change: neither it nor what came before is delivered again. A commit that failed, or whose
   * transaction was rolled back, may be repeated.
   *
   * @param tx an open transaction of the checkpoint, in which the block was applied. The position becomes durable when the caller
   *   commits it. End it before you leave the loop. Without it: a transaction of its own
   * @throws ConsumerError `TAKEN_OVER` if another process of this name reads now, and gets the changes since the last commit;
   *   `ROLLED_BACK` if the commit of an earlier change was rolled back and not repeated; `COMMITTED` if the transaction is repeated although it was
   *   stored, so that its writes would be stored twice; `CLOSED` if the iteration has ended
   */
  readonly commit: (tx?: Tx) => Promise<void>
}

/** The options of `changes`. One chain: each has its own order. */
export type ChangesOptions<ABI extends Abi, Tx> = CommonOptions<ABI, Tx>

/** How long the iteration waits for a transaction of its own (milliseconds). */
const patience = 1000

/** Waits for the iteration's own transaction, but not long: it waits for one of the caller, who may wait for the iteration. */
const briefly = async (transaction: Promise<void>): Promise<void> => {
  const ended = new AbortController()
  await Promise.race([transaction.finally(() => ended.abort()), pause(patience, ended.signal)])
}

/** The commits of an iteration. */
class Commits<Tx> {
  readonly #consumer: Consumer<Abi, Tx>
  readonly #name: string
  readonly #atLeastOnce: boolean
  /** Changes that are not known to be stored: delivered at least once, and those whose commits include writes of the caller. */
  #marked: ReadonlyArray<Delivery> = []
  #bound: ReadonlyArray<number> = []
  /** The state after the last change that was committed, if no transaction was rolled back. */
  last: Saved
  isClosed = false

  constructor(consumer: Consumer<Abi, Tx>, { name, checkpoint }: ChangesOptions<Abi, Tx>, acquired: Saved) {
    this.#consumer = consumer
    this.#name = name
    this.#atLeastOnce = checkpoint.atLeastOnce
    this.last = acquired
  }

  #rolledBack() {
    return new ConsumerError(
      "ROLLED_BACK",
      `${this.#name}: the commit of an earlier change was rolled back, so that its block is not stored: repeat it with its writes, or begin to iterate again`,
    )
  }

  #committed() {
    return new ConsumerError(
      "COMMITTED",
      `${this.#name}: this change is stored already, with the writes of its transaction: roll back, and go on with the next one`,
    )
  }

  /** The error of a caller. */
  errorOf(error: unknown): unknown {
    if (!(error instanceof Superseded)) return error
    if (error.isOwn) return this.#rolledBack()
    return new ConsumerError(
      "TAKEN_OVER",
      `another process reads as ${this.#name} now: begin to iterate again, to stand by`,
    )
  }

  /** Marks the block of a change before it is delivered at least once. @returns whether it is; the signal may abort */
  async announce(step: Delivery): Promise<boolean> {
    // A final block is never retracted.
    if (!this.#atLeastOnce || (step.kind === "apply" && step.block.finalized)) return true
    this.#marked = [...this.#marked, step]
    const { session } = this.#consumer
    const announced = await this.#consumer.retrying(() =>
      session.announce([step], ({ serial }) => {
        if (serial < this.last.serial) throw this.#rolledBack()
      }),
    )
    return announced !== undefined
  }

  /** Stores the state after a change, unless that of a later one is stored. */
  async commit({ after }: Delivery, tx: Tx | undefined): Promise<void> {
    if (this.isClosed)
      throw new ConsumerError(
        "CLOSED",
        `${this.#name}: this iteration has ended, and delivers what is not committed again: begin to iterate again`,
      )
    const { session } = this.#consumer
    const isBound = tx !== undefined || !this.#atLeastOnce
    const next = (stored: Saved) => {
      if (this.#bound.some((serial) => serial > stored.serial && serial < after.serial))
        throw this.#rolledBack()
      // Also when a COMMIT whose reply was lost has succeeded. The caller's writes are then stored with it.
      if (stored.serial >= after.serial) {
        const isRepeated = tx !== undefined && !this.#atLeastOnce && this.#bound.includes(after.serial)
        if (isRepeated) throw this.#committed()
        return undefined
      }
      if (isBound)
        this.#bound = [...this.#bound.filter((serial) => serial !== after.serial), after.serial].slice(-kept)
      // Later changes may have been handled.
      const later = this.#marked.filter((step) => step.after.serial > after.serial)
      return marked(after, later)
    }
    try {
      await (tx === undefined ? session.update(next) : session.within(tx, next))
      if (after.serial > this.last.serial) this.last = after
      const { serial: stored } = session.stored
      this.#bound = this.#bound.filter((serial) => serial > stored)
      this.#marked = this.#marked.filter((step) => step.after.serial > stored)
    } catch (error) {
      throw this.errorOf(error)
    }
  }
}

async function* deliver<ABI extends Abi, Tx>(
  consumer: Consumer<ABI, Tx>,
  commits: Commits<Tx>,
  signal: AbortSignal,
): AsyncGenerator<Change<ABI, Tx>, void, undefined> {
  const { telemetry } = consumer
  let state: State = commits.last
  let delivered = 0
  let failure: { readonly error: unknown } | undefined
  while (!signal.aborted) {
    if (failure !== undefined) throw failure.error
    const found = await consumer.next(state)
    if (found === undefined) return
    for (const step of found.steps) {
      if (!(await commits.announce(step))) return
      delivered = step.after.serial
      const commit = async (tx?: Tx) => {
        await commits.commit(step, tx)
        telemetry.done(step)
      }
      yield { type: step.kind, block: consumer.decode(step.block), commit }
      if (signal.aborted) return
    }
    state = found.state
    const saving = consumer.save(found.state)?.catch((error: unknown) => void (failure = { error }))
    if (saving !== undefined) await briefly(saving)
    await consumer.rest(found, commits.last.serial >= delivered ? state : commits.last)
  }
}

async function* iterate<ABI extends Abi, Tx>(
  chain: number,
  options: ChangesOptions<ABI, Tx>,
  signal: AbortSignal,
  openSource: OpenSource,
): AsyncGenerator<Change<ABI, Tx>, void, undefined> {
  const consumer = await Consumer.open(chain, options, signal, openSource)
  let commits: Commits<Tx> | undefined
  try {
    const acquired = await consumer.acquire()
    if (acquired === undefined) return
    commits = new Commits<Tx>(consumer as never, options as never, acquired)
    yield* deliver(consumer, commits, signal)
  } catch (error) {
    throw commits?.errorOf(error) ?? error
  } finally {
    if (commits !== undefined) commits.isClosed = true
    await briefly(consumer.close())
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
): AsyncIterable<Change<ABI, Tx>> => changesFrom(openSource, options)

/** `changes` of a stream that is opened by a given function. */
export const changesFrom = <const ABI extends Abi = Abi, Tx = unknown>(
  openSource: OpenSource,
  options: ChangesOptions<ABI, Tx>,
): AsyncIterable<Change<ABI, Tx>> => {
  const [chain, ...others] = checkCommon(options)
  if (others.length > 0) throw new OptionError("changes: one chain, because each has its own order")
  return {
    [Symbol.asyncIterator]: () => {
      const left = new AbortController()
      const signal =
        options.signal === undefined ? left.signal : AbortSignal.any([options.signal, left.signal])
      const iterator = iterate(chain!, options, signal, openSource)
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
