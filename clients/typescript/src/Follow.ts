/** Runs handlers for each block, and stores the position in their transaction. */
import type { Abi } from "abitype"
import { handleByKey } from "./ByKey.ts"
import type { Call } from "./ByKey.ts"
import { isSerializationFailure } from "./Checkpoint.ts"
import { Consumer, backoff, openSource, pause } from "./Consumer.ts"
import type { Delivery, Look, OpenSource } from "./Consumer.ts"
import { ConsumerError, StoppedError, textOf } from "./Errors.ts"
import { millisecondsOf } from "./Duration.ts"
import { checkCommon, checkFollow } from "./Options.ts"
import type { FollowOptions } from "./Options.ts"
import { Superseded } from "./Session.ts"
import type { Saved } from "./Session.ts"

/** A handler failed. */
class HandlerFailure extends Error {
  readonly step: Call

  constructor(step: Call, cause: unknown) {
    super(textOf(cause), { cause })
    this.step = step
  }
}

const keyOf = ({ kind, block, part = "" }: Call) => `${kind}:${block.hash}:${part}`

class Follower<ABI extends Abi, Tx> {
  readonly #consumer: Consumer<ABI, Tx>
  readonly #options: FollowOptions<ABI, Tx>
  readonly #batch: ReturnType<typeof checkFollow>
  readonly #wait: number
  readonly #signal: AbortSignal
  /** How often the handler of a block has failed, and the last error; and which blocks are skipped. */
  readonly #attempts = new Map<string, { readonly count: number; readonly error: string }>()
  readonly #skipped = new Set<string>()
  /** The dead letters that are stored, where they need no transaction of the handler's. */
  readonly #letters = new Set<string>()
  /** So many blocks are applied one by one: one of them failed in a batch. */
  #singles = 0
  #committedAt = -Infinity

  constructor(
    consumer: Consumer<ABI, Tx>,
    options: FollowOptions<ABI, Tx>,
    batch: ReturnType<typeof checkFollow>,
    signal: AbortSignal,
  ) {
    this.#consumer = consumer
    this.#options = options
    this.#batch = batch
    this.#wait = millisecondsOf("batch.wait", batch.wait)
    this.#signal = signal
  }

  async run(): Promise<void> {
    const consumer = this.#consumer
    while (!this.#signal.aborted) {
      try {
        await this.#whileOwned()
      } catch (error) {
        if (error instanceof ConsumerError) throw error
        if (!(error instanceof Superseded)) await consumer.failed(error)
      }
    }
  }

  /** Follows until another process takes over, or an error that the next acquisition may not have. */
  async #whileOwned(): Promise<void> {
    const consumer = this.#consumer
    const acquired = await consumer.acquire()
    if (acquired === undefined) return
    let state = acquired
    while (!this.#signal.aborted) {
      const found = await consumer.next(state)
      if (found === undefined) return
      if (await this.#isTooSoon(found)) continue
      state = found.state
      if (found.steps.length > 0) {
        state = await this.#apply(found)
        // What could not be applied is found again.
        if (this.#signal.aborted || state.serial !== found.state.serial) continue
      }
      await consumer.save(state)
      await consumer.rest(found, state)
    }
  }

  /** Final blocks wait for others, so that few transactions are enough. */
  async #isTooSoon({ steps, waitAfter }: Look): Promise<boolean> {
    const rest = this.#committedAt + this.#wait - performance.now()
    if (rest <= 0 || waitAfter === undefined || steps.length === 0 || this.#signal.aborted) return false
    const logs = steps.reduce((sum, { block }) => sum + block.logs.length, 0)
    const isFull = steps.length >= this.#batch.blocks || logs >= this.#batch.logs
    if (isFull || !steps.every(isFinal)) return false
    await pause(rest, this.#signal)
    return true
  }

  /** Applies the steps, in one transaction or several. @returns the state that is stored then */
  async #apply({ steps }: Look): Promise<Saved> {
    const { session } = this.#consumer
    for (let i = 0; i < steps.length;) {
      if (this.#signal.aborted) break
      const size = this.#sizeOf(steps, i)
      const batch = steps.slice(i, i + size)
      i += size
      try {
        await this.#commit(batch)
        this.#singles = Math.max(this.#singles - size, 0)
      } catch (error) {
        if (error instanceof ConsumerError || error instanceof Superseded) throw error
        await this.#decide(error, batch)
        await this.#consumer.reload()
        break
      }
    }
    return session.stored
  }

  /** How many of the steps share a transaction: final blocks do. With an at-least-once checkpoint there is none to share. */
  #sizeOf(steps: ReadonlyArray<Delivery>, from: number): number {
    const { blocks, logs } = this.#batch
    const mayShare = (step: Delivery) =>
      isFinal(step) || (this.#options.concurrency !== undefined && step.kind === "apply")
    if (this.#singles > 0 || !mayShare(steps[from]!)) return 1
    let size = 1
    let sum = steps[from]!.block.logs.length
    while (size < blocks && from + size < steps.length) {
      const step = steps[from + size]!
      sum += step.block.logs.length
      if (!mayShare(step) || sum > logs) break
      size++
    }
    return size
  }

  async #commit(batch: ReadonlyArray<Delivery>): Promise<void> {
    const { session, telemetry } = this.#consumer
    if (this.#options.checkpoint.atLeastOnce) {
      await session.announce(batch)
      await this.#handleUnbound(batch)
      await session.update((stored) => this.#withSkipped(batch, stored))
    } else {
      // The position is locked: no other process applies these blocks meanwhile.
      await session.update(async (stored, tx) => {
        await this.#handle(tx, batch)
        return this.#withSkipped(batch, stored)
      })
    }
    this.#committedAt = performance.now()
    for (const step of batch) {
      this.#forget(keyOf(step))
      telemetry.done(step)
    }
  }

  /** Forgets the failures of a block, and those of its parts. */
  #forget(key: string): void {
    for (const known of [this.#attempts, this.#skipped, this.#letters])
      for (const one of known.keys()) if (one.startsWith(key)) known.delete(one)
  }

  /** The state after a batch. Skipped blocks, of it and before, are marked: what was not applied is not retracted. */
  #withSkipped(batch: ReadonlyArray<Delivery>, stored: Saved): Saved {
    const { position, stack, serial } = batch.at(-1)!.after
    const skipped = new Set(stored.stack.filter(({ skipped }) => skipped).map(({ hash }) => hash))
    for (const step of batch) if (this.#skipped.has(keyOf(step))) skipped.add(step.block.hash)
    return {
      position,
      stack: stack.map((block) => (skipped.has(block.hash) ? { ...block, skipped: true } : block)),
      serial,
    }
  }

  /** Runs the handlers of a batch. @param tx `undefined` with an at-least-once checkpoint: handlers are in no transaction */
  async #handle(tx: Tx | undefined, batch: ReadonlyArray<Call>): Promise<void> {
    const { applyMany, checkpoint, name } = this.#options
    const { chain, decode } = this.#consumer
    for (const step of batch) {
      if (!this.#skipped.has(keyOf(step))) continue
      const { kind, block } = step
      const { count, error } = this.#attempts.get(keyOf(step))!
      const letter = {
        kind,
        number: block.number,
        hash: block.hash,
        error: `${error}, after ${count} attempts`,
        data: JSON.stringify(block),
      }
      const write = (tx: Tx) => checkpoint.deadLetter(tx, { name, chain }, letter)
      if (!checkpoint.atLeastOnce) await write(tx!)
      else if (!this.#letters.has(keyOf(step))) {
        await checkpoint.transaction(write)
        this.#letters.add(keyOf(step))
      }
    }
    const wanted = batch.filter((step) => !this.#skipped.has(keyOf(step)))
    if (wanted.length === 0) return
    if (applyMany !== undefined && wanted[0]!.kind === "apply") {
      const blocks = wanted.map(({ block }) => decode(block))
      await this.#call(wanted[0]!, () => applyMany({ tx: tx!, blocks }))
      return
    }
    for (const step of wanted) await this.#handleOne(tx, step)
  }

  #handleOne(tx: Tx | undefined, step: Call): Promise<void> {
    const { apply, undo } = this.#options
    const context = { tx: tx!, block: this.#consumer.decode(step.block) }
    return this.#call(step, () => (step.kind === "apply" ? apply!(context) : undo!(context)))
  }

  async #call(step: Call, handler: () => void | Promise<void>): Promise<void> {
    try {
      await this.#consumer.telemetry.handling(step, async () => handler())
    } catch (error) {
      throw new HandlerFailure(step, error)
    }
  }

  /** Without a transaction: the handlers first. What was completed is saved, even if a later block failed. */
  async #handleUnbound(batch: ReadonlyArray<Delivery>): Promise<void> {
    const { concurrency } = this.#options
    const { session } = this.#consumer
    if (concurrency === undefined || batch[0]!.kind === "undo") return this.#handle(undefined, batch)
    const { completed, failure } = await handleByKey(batch, concurrency, (part) =>
      this.#handle(undefined, [part]),
    )
    if (failure === undefined) return
    if (completed > 0) await session.update((stored) => this.#withSkipped(batch.slice(0, completed), stored))
    throw failure.error
  }

  /** After a failed transaction: whether its block is tried again, or skipped. */
  async #decide(error: unknown, batch: ReadonlyArray<Delivery>): Promise<void> {
    if (isSerializationFailure(error)) return
    if (!(error instanceof HandlerFailure)) return this.#consumer.failed(error)
    this.#consumer.telemetry.failed(error.step)
    if (batch.length > 1) {
      // Which block it is shows when they are applied one by one.
      this.#singles = batch.length
      return
    }
    const key = keyOf(error.step)
    const attempt = (this.#attempts.get(key)?.count ?? 0) + 1
    this.#attempts.set(key, { count: attempt, error: textOf(error.cause) })
    const { onError = () => "retry" as const } = this.#options
    const decision = await onError(error.cause, this.#consumer.decode(error.step.block), attempt)
    if (decision === "stop")
      throw new StoppedError(this.#consumer.chain, error.step.block.number, error.cause)
    if (decision === "skip") this.#skipped.add(key)
    else await pause(backoff(attempt), this.#signal)
  }
}

const isFinal = ({ kind, block }: Delivery) => kind === "apply" && block.finalized

/** `follow` of streams that are opened by a given function. */
export const followFrom = async <ABI extends Abi, Tx>(
  openSource: OpenSource,
  options: FollowOptions<ABI, Tx>,
): Promise<void> => {
  const chains = checkCommon(options)
  const batch = checkFollow(options)
  const failed = new AbortController()
  const signal =
    options.signal === undefined ? failed.signal : AbortSignal.any([options.signal, failed.signal])
  const all = chains.map(async (chain) => {
    const consumer = await Consumer.open(chain, options, signal, openSource)
    try {
      await new Follower(consumer, options, batch, signal).run()
    } catch (error) {
      failed.abort()
      throw error
    } finally {
      await consumer.close()
    }
  })
  const results = await Promise.allSettled(all)
  for (const result of results) if (result.status === "rejected") throw result.reason
}

/**
 * Follows a chain, or several: calls `apply` for each block with logs that match, in order, and `undo` for each that a reorg
 * replaced, and stores the position in their transaction.
 *
 * @returns when the signal has aborted and the block in hand is finished
 * @throws ConsumerError, whose message says what to do
 */
export const follow = <const ABI extends Abi = Abi, Tx = unknown>(
  options: FollowOptions<ABI, Tx>,
): Promise<void> => followFrom(openSource, options)
