/** Handles logs of one key in order, and those of different keys at the same time. */
import type { Delivery } from "./Consumer.ts"
import type { Log } from "./Entry.ts"
import type { FollowOptions } from "./Options.ts"

/** A call of a handler: for a block, or with `concurrency` for the part of it that has one key. */
export interface Call extends Delivery {
  readonly part?: string
}

/** The parts of a block whose logs have the same key. */
const partsOf = (step: Delivery, by: (log: Log) => string): ReadonlyMap<string, Call> => {
  const logs = new Map<string, Array<Log>>()
  for (const log of step.block.logs) {
    const key = by(log)
    const known = logs.get(key)
    if (known === undefined) logs.set(key, [log])
    else known.push(log)
  }
  return new Map(
    [...logs].map(([key, logs]) => [key, { ...step, block: { ...step.block, logs }, part: key }]),
  )
}

/**
 * Handles the parts of blocks. After a failure no further part is begun.
 *
 * @returns how many of the first blocks are complete, and the first error
 */
export const handleByKey = async (
  batch: ReadonlyArray<Delivery>,
  { by, limit = 16 }: NonNullable<FollowOptions<never, never>["concurrency"]>,
  handle: (part: Call) => Promise<void>,
): Promise<{ readonly completed: number; readonly failure: { readonly error: unknown } | undefined }> => {
  let completed = 0
  let failure: { readonly error: unknown } | undefined
  const done = batch.map(() => false)
  const chains = new Map<string, Promise<void>>()
  const running = new Set<Promise<void>>()
  for (const [i, step] of batch.entries()) {
    if (failure !== undefined) break
    const parts = partsOf(step, by)
    let left = parts.size
    const finish = () => {
      if (--left > 0) return
      done[i] = true
      while (done[completed]) completed++
    }
    for (const [key, part] of parts) {
      while (running.size >= limit) await Promise.race(running)
      const before = chains.get(key) ?? Promise.resolve()
      const work = async () => {
        await before
        if (failure !== undefined) return
        await handle(part)
        finish()
      }
      const task = work().catch((error: unknown) => {
        failure ??= { error }
      })
      chains.set(key, task)
      running.add(task)
      void task.then(() => running.delete(task))
    }
  }
  await Promise.all(running)
  return { completed, failure }
}
