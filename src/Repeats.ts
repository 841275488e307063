/** Says what goes wrong once, and counts how often it goes wrong in the same way after that. */
import { Effect } from "effect"

export interface Repeats {
  /** Warns, unless the last warning was the same. */
  readonly warn: (text: string) => Effect.Effect<void>
  /** It works again: says how often the last warning was not repeated, and forgets it. */
  readonly over: Effect.Effect<void>
}

/** Nothing has been said yet. */
export const make = (): Repeats => {
  let last: string | undefined
  let times = 0
  const told = Effect.suspend(() => {
    const text = times === 0 ? undefined : `${times} times more: ${last}`
    times = 0
    return text === undefined ? Effect.void : Effect.logWarning(text)
  })
  return {
    warn: (text) =>
      Effect.suspend(() => {
        if (text === last) {
          times++
          return Effect.void
        }
        return Effect.andThen(told, () => {
          last = text
          return Effect.logWarning(text)
        })
      }),
    over: Effect.andThen(
      told,
      Effect.sync(() => (last = undefined)),
    ).pipe(Effect.asVoid),
  }
}
