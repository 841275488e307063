/**
 * Frees memory that is not used any more, where the garbage collector would free it late: what survived two minor collections
 * stays until the next full collection, under a steady load for many seconds (docs/decisions/0012).
 */
import { Duration, Effect, Layer } from "effect"
import { performance } from "node:perf_hooks"
import * as Background from "./Background.ts"

/** Frees the bytes of a buffer that is not read any more. Its memory must be its own, not a part of a pool. */
export const freeBuffer = ({ buffer }: Buffer<ArrayBufferLike>): void => {
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0)
}

/** The text of bytes in UTF-8 that are not read any more. Frees them, unless they share their memory with others. */
export const takeText = (bytes: Buffer): string => {
  const text = bytes.toString()
  if (bytes.buffer.byteLength === bytes.byteLength) freeBuffer(bytes)
  return text
}

/** Empties an array that is not read any more, so that its elements are collected although something still refers to it. */
export const freeItems = (items: ReadonlyArray<unknown>): void => void ((items as Array<unknown>).length = 0)

/** How often it is looked whether the process is busy. */
const lookInterval = Duration.seconds(15)

/** The shares of time in which the event loop runs code, below and above which a process counts as quiet and as busy. */
const quiet = 0.05
const busy = 0.25

/**
 * Collects all garbage, and returns the memory to the system. It takes some 50 ms. Without `--expose-gc`, which
 * `start.cjs` sets, it does nothing.
 */
const collect = Effect.sync(() =>
  globalThis.gc?.({ type: "major", flavor: "last-resort", execution: "sync" }),
)

/** The share of the time since the last call in which the event loop ran code. */
const makeUtilization = () => {
  let before = performance.eventLoopUtilization()
  return () => {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, before)
    before = now
    return utilization
  }
}

/**
 * Collects once when a busy process becomes quiet, after the start for example. V8 would keep the memory of the busy time:
 * it shrinks the heap with later collections, which a quiet process does not cause.
 *
 * @param utilization the share of time since the last call in which the event loop ran code
 */
export const collectWhenQuiet = (utilization: () => number, collect: Effect.Effect<unknown>) => {
  let wasBusy = true
  const look = Effect.suspend(() => {
    const share = utilization()
    if (share > busy) wasBusy = true
    if (share > quiet || !wasBusy) return Effect.void
    wasBusy = false
    return collect
  })
  return Effect.forever(Effect.delay(look, lookInterval))
}

/** @see collectWhenQuiet */
export const layer = Layer.effectDiscard(
  Effect.suspend(() => Background.forkScoped(collectWhenQuiet(makeUtilization(), collect))),
)
