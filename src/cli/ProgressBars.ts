/** Progress bars with the time left, on standard error where it is a terminal; nothing elsewhere. */
import { Effect } from "effect"
import type { Console, Scope } from "effect"
import * as Background from "../Background.ts"
import { formatDuration } from "../observability/LogEvents.ts"
import { InPlace } from "./InPlace.ts"
import { canRedraw, grouped } from "./Output.ts"
import { cut } from "./Table.ts"

const redrawEvery = "200 millis"

/** Bars on the screen at most: the log above them must remain visible. */
const mostBars = 8

const width = 20

/** Before this time (milliseconds) a rate is a guess, and what is done within it needs no bar. */
const earliest = 1000

/** The time left follows from the rate within this time (milliseconds): the last blocks of a chain are slower than ranges. */
const rateOver = 10_000

/** When a task was begun, and how fast it is. Times are `performance.now()`. */
export class Pace {
  readonly since: number
  readonly #samples: Array<{ readonly at: number; readonly done: number }> = []

  constructor(since: number) {
    this.since = since
  }

  /** The seconds left; `undefined` while nothing is done. Must be called each time a bar is drawn. */
  left(done: number, total: number, at: number): number | undefined {
    this.#samples.push({ at, done })
    while (this.#samples[0]!.at < at - rateOver) this.#samples.shift()
    const [first] = this.#samples
    const more = done - first!.done
    return more > 0 ? ((at - first!.at) / 1000 / more) * (total - done) : undefined
  }
}

/** What a bar shows. */
export interface Task {
  readonly title: string
  readonly done: number
  readonly total: number
  /** What is counted: `blocks`. */
  readonly unit: string
  readonly pace: Pace
}

/** The task of going through a range of blocks, and then through another one. */
export class BlockRange {
  readonly #chain: string
  #from = 0
  #task: Task | undefined

  constructor(chain: string) {
    this.#chain = chain
  }

  get tasks(): ReadonlyArray<Task> {
    return this.#task === undefined ? [] : [this.#task]
  }

  /** Begins with a range. @param what is done with it: `reading the store` */
  begin(what: string, from: number, to: number): void {
    this.#from = from
    const title = `${this.#chain}: ${what}`
    const pace = new Pace(performance.now())
    this.#task = { title, done: 0, total: to - from + 1, unit: "blocks", pace }
  }

  /** Everything up to a block of the range is done. */
  reach(block: number): void {
    if (this.#task === undefined) return
    const done = Math.min(Math.max(block - this.#from + 1, 0), this.#task.total)
    this.#task = { ...this.#task, done }
  }
}

/** `base  ████████░░░░░░░░░░░░   40 %  400 of 1 000 blocks  3 s left`. */
const barOf = ({ title, done, total, unit, pace }: Task, now: number): string => {
  const part = total <= 0 ? 1 : Math.min(Math.max(done / total, 0), 1)
  const full = Math.floor(part * width)
  const percent = `${Math.floor(part * 100)} %`.padStart(5)
  const seconds = pace.left(done, total, now)
  const left = seconds === undefined ? "" : `  ${formatDuration(Math.round(seconds))} left`
  const count = `${grouped(Math.max(done, 0))} of ${grouped(total)} ${unit}`
  return `${title}  ${"█".repeat(full)}${"░".repeat(width - full)} ${percent}  ${count}${left}`
}

/** The lines of the bars. @param columns what no line exceeds @param now `performance.now()` */
export const barsOf = (tasks: ReadonlyArray<Task>, now: number, columns: number): ReadonlyArray<string> => {
  const due = tasks.filter(({ pace }) => now - pace.since >= earliest)
  const shown = due.slice(0, mostBars)
  const longest = Math.max(...shown.map(({ title }) => title.length))
  const bars = shown.map((task) => barOf({ ...task, title: task.title.padEnd(longest) }, now))
  const more = due.length - shown.length
  return [...bars, ...(more > 0 ? [`… ${more} more`] : [])].map((line) => cut(line, columns))
}

const bars = new InPlace(process.stderr)

/** The console of a process that shows bars: what it prints is above them. */
export const consoleAboveBars: Console.Console = {
  ...globalThis.console,
  log: (...args) => bars.above(() => globalThis.console.log(...args)),
  error: (...args) => bars.above(() => globalThis.console.error(...args)),
}

/** Shows bars until the scope closes, and removes them. @param tasks called for each redraw */
export const show = (tasks: () => ReadonlyArray<Task>): Effect.Effect<void, never, Scope.Scope> => {
  if (!canRedraw(process.stderr)) return Effect.void
  const draw = Effect.sync(() => {
    const { columns, rows } = bars.size
    bars.draw(barsOf(tasks(), performance.now(), columns).slice(0, rows))
  })
  return Effect.gen(function* () {
    yield* Effect.addFinalizer(() => Effect.sync(() => bars.draw([])))
    yield* Background.forkScoped(Effect.forever(Effect.andThen(draw, Effect.sleep(redrawEvery))))
  })
}
