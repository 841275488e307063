/** Random journals, crashes, failovers and reorgs: a consumer's table equals the chain. */
import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import type { Checkpoint } from "../../clients/typescript/src/Checkpoint.ts"
import type { Finality } from "../../clients/typescript/src/Plan.ts"
import { Dice, JournalModel, contracts } from "./JournalModel.ts"
import { readers, tables } from "./tables.ts"
import type { Process, Table } from "./tables.ts"

/** More looks than any journal needs to be read to its end. */
const mostLooks = 4000

const never = new Promise<never>(() => {})

interface Case {
  readonly read: (process: Process) => Promise<void>
  readonly table: () => Table
  readonly finality: Finality
  readonly seed: number
}

const expected = (model: JournalModel, finality: Finality, wanted: ReadonlyArray<string>) => {
  const limit =
    finality === "latest"
      ? Infinity
      : finality === "finalized"
        ? model.finalNumber
        : model.chain.length - finality
  return model.chain
    .filter(({ number }) => number <= limit)
    .flatMap(({ hash, logs }) =>
      logs.flatMap((contract, i) => (wanted.includes(contract) ? [`1:${hash}:${i}`] : [])),
    )
    .sort()
}

const play = async ({ read, table: makeTable, finality, seed }: Case) => {
  const dice = new Dice(seed)
  // Whether a position is published, and saved at rest, without a second between.
  const isEager = dice.chance(0.5)
  let now = 0
  vi.spyOn(performance, "now").mockImplementation(() => (isEager ? (now += 1000) : 0))
  let heartbeat = () => {}
  vi.spyOn(globalThis, "setInterval").mockImplementation(
    ((beat: () => void) => void (heartbeat = beat)) as never,
  )
  const model = new JournalModel(dice)
  const table = makeTable()
  const wanted = dice.chance(0.5) ? contracts : [contracts[dice.below(contracts.length)]!]
  const isSlow = dice.chance(0.3)
  let steps = 50 + dice.below(200)
  let crashes = dice.below(4)
  let looks = 0
  let stop = new AbortController()
  let died: (() => void) | undefined
  let process = 0
  /** Whether the reader waits for a change that may never come; and how it is told so, if it has a transaction open. */
  let isWaiting = false
  let quiet: (() => void) | undefined

  const isDone = () => {
    if (steps > 0 || !model.isComplete) return false
    return JSON.stringify(table.rows()) === JSON.stringify(expected(model, finality, wanted))
  }

  /** Things happen at any await, and the process may end there. */
  const interrupt = async (mine: number) => {
    if (mine !== process) return never
    looks++
    if (dice.chance(0.03)) heartbeat()
    if (steps > 0) {
      if (!isSlow || dice.chance(0.2)) {
        for (let i = dice.below(3); i > 0; i--, steps--) model.step()
      }
    } else model.ingest()
    if (crashes > 0 && dice.chance(0.02)) {
      crashes--
      died!()
      return never
    }
    const isOver = isDone() || looks > mostLooks || (isWaiting && steps <= 0 && model.isComplete)
    if (isOver && quiet === undefined) stop.abort()
    if (isOver) quiet?.()
    return undefined
  }

  /** A checkpoint whose every call may be the last one. */
  const interrupted = (checkpoint: Checkpoint<never>, mine: number): Checkpoint<never> => ({
    ...checkpoint,
    transaction: async (run) => {
      if (mine !== process) return never
      const result = await checkpoint.transaction(run)
      await interrupt(mine)
      return result
    },
    load: async (...args) => {
      await interrupt(mine)
      return checkpoint.load(...args)
    },
    save: async (...args) => {
      await interrupt(mine)
      await checkpoint.save(...args)
      await interrupt(mine)
    },
  })

  const problems: Array<unknown> = []
  const isOver = () => isDone() || looks > mostLooks || problems.length > 0
  while (!isOver()) {
    const mine = ++process
    stop = new AbortController()
    const { signal } = stop
    const death = new Promise<void>((resolve) => (died = resolve))
    const { source } = model
    model.before = async () => {}
    const guarded = Object.fromEntries(
      Object.entries(source).map(([name, value]) => [
        name,
        typeof value === "function" && name !== "compare" && name !== "close"
          ? async (...args: Array<never>) => {
              await interrupt(mine)
              return (value as (...args: Array<never>) => unknown)(...args)
            }
          : value,
      ]),
    ) as typeof source
    isWaiting = false
    quiet = undefined
    const failed = (error: unknown) => {
      if (mine !== process) return
      problems.push(error)
      stop.abort()
    }
    const reading = read({
      table,
      dice,
      open: () => guarded,
      interrupt: () => interrupt(mine),
      waits: () => (isWaiting = true),
      quiet: (isOpen) => {
        quiet = undefined
        return isOpen ? new Promise((resolve) => (quiet = resolve)) : undefined
      },
      options: {
        sqlite: "model",
        chain: 1,
        name: "table",
        from: "earliest",
        addresses: wanted.length === contracts.length ? [] : wanted,
        finality,
        checkpoint: interrupted(
          table.checkpoint(() => mine === process),
          mine,
        ),
        lease: 0,
        signal,
        onWarning: failed,
      },
    }).catch(failed)
    await Promise.race([reading, death])
    process++
    table.crashed()
  }
  if (problems.length > 0) throw problems[0]
  assert.deepStrictEqual(table.rows(), expected(model, finality, wanted))
}

/** How many random journals are read in each of the ways. More: `CONSUMER_SEEDS=10000`. */
const seeds = Number(process.env["CONSUMER_SEEDS"] ?? 85)
const first = Number(process.env["CONSUMER_FIRST"] ?? 1)

afterEach(() => void vi.restoreAllMocks())

describe("a consumer's table equals the canonical chain, whatever the stream, its store and its own process do", () => {
  for (const [form, read] of Object.entries(readers)) {
    for (const [name, table] of Object.entries(tables)) {
      for (const finality of ["latest", "finalized", 3] as const) {
        it(`${form}, ${name}, finality ${finality}`, async () => {
          for (let seed = first; seed < first + seeds; seed++) {
            try {
              await play({ read, table, finality, seed })
            } catch (error) {
              throw new Error(`seed ${seed}: ${String(error)}`, { cause: error })
            }
          }
        }, 3_600_000)
      }
    }
  }
})
