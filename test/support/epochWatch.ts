/**
 * Which epochs there must be, from what was stored and answered alone.
 *
 * An ingestor knows of the entries that the store has acknowledged to it since it last asked what the epoch is, and of the
 * last one that there was then. Where the store, set back to an older copy, has one of them no more, and it was not trimmed,
 * the loss can be known: the epoch must change, once, by the time when that ingestor has asked again, and when all is
 * quiet. Whoever was killed, or is not running, knows nothing; and what is there again with the same id and the same log is no
 * loss, to a reader neither.
 */
import { Effect } from "effect"
import type { Copied, Remembered } from "./copies.ts"

const lost = ({ id, log }: Remembered) => `entry ${id} (${log}) was lost, and no epoch began`

/** An ingestor as the store sees it. */
export interface Process {
  /** Killed: whatever it asks for is not done. */
  dead: boolean
  /** It is told to stop: it may still find out what it can, and need not. */
  stopping: boolean
}

export interface EpochWatch {
  /** After each thing that was done to the store; together with it, so that nothing else is done between. */
  readonly look: Effect.Effect<void>
  /** The store has acknowledged entries to a process, of which this is the last one. */
  readonly acknowledged: (process: Process, last: Remembered | undefined) => void
  /** The store has told a process what the epoch is, when this was the last entry. */
  readonly asked: (process: Process, last: Remembered | undefined) => Effect.Effect<void>
  /** The store was set back, or emptied. */
  readonly replaced: Effect.Effect<void>
  /** What was wrong; to be asked when all has been quiet for a while. */
  readonly verdict: Effect.Effect<ReadonlyArray<string>>
  /** How many losses could be known, and were told. */
  readonly told: () => number
}

export const make = ({ epoch, lacks }: Pick<Copied, "epoch" | "lacks">): EpochWatch => {
  const faults: Array<string> = []
  const remembered = new Map<Process, ReadonlyArray<Remembered>>()
  const seen = new Set<string>()
  /** The losses that each epoch has told: its own, and those of the epochs that it followed. */
  const tells = new Map<string, Set<Remembered>>()
  let token: string | undefined
  let told = 0

  const everything = () => [...remembered.values()].flat()
  /** What these processes know of, and the store has lost, and no epoch has told. */
  const untold = (who: (process: Process) => boolean) =>
    lacks(
      [...remembered].flatMap(([process, entries]) =>
        who(process) ? entries.filter((entry) => !tells.get(token ?? "")?.has(entry)) : [],
      ),
    )

  const look = Effect.gen(function* () {
    const now = yield* epoch
    if (now?.token === token) return
    if (now === undefined) return void faults.push(`epoch ${token} is not there any more`)
    if (seen.has(now.token)) faults.push(`epoch ${now.token} began again`)
    seen.add(now.token)
    if (token === undefined) {
      if (now.reason !== "begun") faults.push(`the first epoch says "${now.reason}"`)
      // Its beginning says to all that what they knew is gone.
      tells.set(now.token, new Set(everything()))
    } else {
      if (now.reason !== "lost") faults.push(`an epoch says "${now.reason}", and nobody began anew`)
      const losses = yield* untold(({ dead }) => !dead)
      if (losses.length === 0) faults.push("an epoch began, and no entry was lost, or it was told before")
      else told++
      const gone = yield* lacks(everything())
      tells.set(now.token, new Set([...(tells.get(token) ?? []), ...gone]))
    }
    token = now.token
  })

  return {
    look,
    acknowledged: (process, last) => {
      if (last !== undefined) remembered.set(process, [...(remembered.get(process) ?? []), last])
    },
    asked: Effect.fnUntraced(function* (process, last) {
      // Where there is nothing, the first epoch will say so to everybody.
      if (token !== undefined) faults.push(...(yield* untold((one) => one === process)).map(lost))
      remembered.set(process, last === undefined ? [] : [last])
    }),
    replaced: Effect.map(epoch, (now) => void (token = now?.token)),
    verdict: Effect.gen(function* () {
      const losses = yield* untold(({ dead, stopping }) => !dead && !stopping)
      return [...faults, ...losses.map(lost)]
    }),
    told: () => told,
  }
}
