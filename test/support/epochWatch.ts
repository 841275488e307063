/**
 * The model of epochs: which there must be, computed only from what was stored and answered.
 *
 * An ingestor knows the entries that the store has acknowledged to it since its last epoch check, and the last entry at that
 * check. If the store was set back to an older copy and lacks one of them, and it was not trimmed, the loss is detectable: the
 * epoch must change exactly once, by the end of that ingestor's next check, and before the end of the run. An ingestor that was
 * killed or is not running knows nothing; an entry that is there again with the same id and log is not lost, for readers either.
 * An epoch can be lost as well: an ingestor that knows a later epoch than the store has knows of a loss, whatever the entries are.
 */
import { Effect } from "effect"
import type { Copied, Remembered } from "./copies.ts"

const lost = ({ id, log }: Remembered) => `entry ${id} (${log}) was lost, and no epoch began`

const lostEpoch = (token: string) => `epoch ${token} was lost, and no epoch began`

/** An ingestor as the store sees it. */
export interface Process {
  /** Killed: its requests are not executed. */
  dead: boolean
  /** It is stopping: it may still detect a loss, but need not. */
  stopping: boolean
}

export interface EpochWatch {
  /** Checks the epoch after each operation on the store, atomically with it. */
  readonly look: Effect.Effect<void>
  /** The store has acknowledged entries to a process, of which this is the last one. */
  readonly acknowledged: (process: Process, last: Remembered | undefined) => void
  /** A process has checked the epoch, when this was the last entry. */
  readonly asked: (process: Process, last: Remembered | undefined) => Effect.Effect<void>
  /** The store was set back, or emptied. */
  readonly replaced: Effect.Effect<void>
  /** The faults found; to be read once the store has been idle for a while. */
  readonly verdict: Effect.Effect<ReadonlyArray<string>>
  /** How many detectable losses were reported. */
  readonly reported: () => number
}

export const make = ({ epoch, lacks }: Pick<Copied, "epoch" | "lacks">): EpochWatch => {
  const faults: Array<string> = []
  const remembered = new Map<Process, ReadonlyArray<Remembered>>()
  /** Every epoch, in the order in which they began, and the one that each process has last seen. */
  const seen: Array<string> = []
  const lastSeen = new Map<Process, string | undefined>()
  /** The losses that each epoch reports: its own, and those of earlier epochs. */
  const reports = new Map<string, Set<Remembered>>()
  let token: string | undefined
  let reported = 0

  /** Later epochs than the store has, which these processes know. */
  const laterEpochs = (who: (process: Process) => boolean) =>
    [...lastSeen].flatMap(([process, epoch]) =>
      who(process) && epoch !== undefined && seen.indexOf(epoch) > seen.indexOf(token ?? "") ? [epoch] : [],
    )

  const everything = () => [...remembered.values()].flat()
  /** Entries that these processes know, that the store has lost, and that no epoch has reported. */
  const unreported = (who: (process: Process) => boolean) =>
    lacks(
      [...remembered].flatMap(([process, entries]) =>
        who(process) ? entries.filter((entry) => !reports.get(token ?? "")?.has(entry)) : [],
      ),
    )

  const look = Effect.gen(function* () {
    const now = yield* epoch
    if (now?.token === token) return
    if (now === undefined) return void faults.push(`epoch ${token} disappeared`)
    if (seen.includes(now.token)) faults.push(`epoch ${now.token} began again`)
    const isEpochLost = laterEpochs(({ dead }) => !dead).length > 0
    seen.push(now.token)
    if (token === undefined) {
      if (now.reason !== "begun") faults.push(`the first epoch says "${now.reason}"`)
      // The first epoch reports the loss of everything that was known before.
      reports.set(now.token, new Set(everything()))
    } else {
      if (now.reason !== "lost") faults.push(`an epoch says "${now.reason}" without a reset`)
      const losses = yield* unreported(({ dead }) => !dead)
      if (losses.length === 0 && !isEpochLost)
        faults.push("an epoch began without a loss, or after the loss was reported")
      else reported++
      const gone = yield* lacks(everything())
      reports.set(now.token, new Set([...(reports.get(token) ?? []), ...gone]))
    }
    token = now.token
  })

  return {
    look,
    acknowledged: (process, last) => {
      if (last !== undefined) remembered.set(process, [...(remembered.get(process) ?? []), last])
      // An entry of an earlier epoch does not undo what the process knows: the store was set back, and its next check tells.
      if (laterEpochs((one) => one === process).length === 0) lastSeen.set(process, token)
    },
    asked: Effect.fnUntraced(function* (process, last) {
      // In an empty store, the first epoch will report the loss.
      if (token !== undefined) faults.push(...(yield* unreported((one) => one === process)).map(lost))
      if (token !== undefined) faults.push(...laterEpochs((one) => one === process).map(lostEpoch))
      remembered.set(process, last === undefined ? [] : [last])
      lastSeen.set(process, last === undefined ? undefined : token)
    }),
    replaced: Effect.map(epoch, (now) => void (token = now?.token)),
    verdict: Effect.gen(function* () {
      const isRunning = ({ dead, stopping }: Process) => !dead && !stopping
      const losses = yield* unreported(isRunning)
      const lostEpochs = token === undefined ? [] : laterEpochs(isRunning)
      return [...faults, ...losses.map(lost), ...lostEpochs.map(lostEpoch)]
    }),
    reported: () => reported,
  }
}
