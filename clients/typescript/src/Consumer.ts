/** What `follow` and `changes` share: one chain's source, reader and session, with retries. */
import type { Abi } from "abitype"
import { setTimeout as sleep } from "node:timers/promises"
import { millisecondsOf } from "./Duration.ts"
import type { RawBlock } from "./Entry.ts"
import { ConsumerError } from "./Errors.ts"
import { makeDecoder } from "./Events.ts"
import type { Block } from "./Events.ts"
import { makeMatches } from "./Filter.ts"
import type { CommonOptions, StreamOptions } from "./Options.ts"
import { Reader } from "./Reader.ts"
import type { Found } from "./Reader.ts"
import type { Position, State } from "./Position.ts"
import { openRedis } from "./RedisSource.ts"
import type { Step } from "./Plan.ts"
import { Session, Superseded } from "./Session.ts"
import type { Saved } from "./Session.ts"
import type { Source } from "./Source.ts"
import { openSqlite } from "./SqliteSource.ts"
import { loadTelemetry } from "./Telemetry.ts"
import type { Telemetry } from "./Telemetry.ts"

/** The delay before an attempt, growing from 0.1 s to 10 s, with jitter (milliseconds). */
export const backoff = (attempt: number): number =>
  Math.min(100 * 2 ** (attempt - 1), 10_000) * (0.8 + 0.4 * Math.random())

/** How long a reader waits for an entry before it looks at the head (milliseconds). */
const idle = 1000

/** How often a position is published, and saved when no handler had to run (milliseconds). */
const interval = 1000

/** The least time between two heartbeats (milliseconds). */
const shortestBeat = 100

/** A call of a handler, and the state after it. */
export interface Delivery extends Step {
  readonly after: Saved
}

/** What a look at the stream found, with the serial numbers of the states. */
export interface Look extends Found {
  readonly steps: ReadonlyArray<Delivery>
  readonly state: Saved
}

/** Opens the stream that the options name. */
export type OpenSource = (options: StreamOptions, chain: number) => Source

export const openSource: OpenSource = ({ redis, sqlite, prefix }, chain) =>
  redis === undefined ? openSqlite(sqlite!, chain) : openRedis(redis, chain, prefix)

/** Sleeps, shorter if the signal aborts. */
export const pause = async (milliseconds: number, signal: AbortSignal): Promise<void> => {
  await sleep(milliseconds, undefined, { signal }).catch(() => {})
}

export class Consumer<ABI extends Abi, Tx> {
  readonly chain: number
  readonly session: Session<Tx>
  readonly telemetry: Telemetry
  readonly decode: (block: RawBlock) => Block<ABI>
  readonly #options: CommonOptions<ABI, Tx>
  readonly #signal: AbortSignal
  readonly #source: Source
  readonly #reader: Reader
  #reportedAt = -Infinity
  #savedAt = -Infinity
  #isSaving = false
  /** The last state that was read, and the last one that a handler must lead to. */
  #serial = 0
  #delivered = 0
  /** The store was set back: entries after `lower` are needed until a state from this serial number on is stored. */
  #setBack: { readonly serial: number; readonly lower: Position } | undefined
  #failures = 0
  #progress = ""
  #heartbeats: NodeJS.Timeout | undefined

  private constructor(
    chain: number,
    options: CommonOptions<ABI, Tx>,
    signal: AbortSignal,
    decoder: Awaited<ReturnType<typeof makeDecoder<ABI>>>,
    telemetry: Telemetry,
    source: Source,
  ) {
    const {
      name,
      finality,
      addresses = [],
      checkpoint,
      lease = "10s",
      pinned = true,
      onFilterChanged,
    } = options
    const asked = { addresses, events: decoder.topics }
    this.chain = chain
    this.telemetry = telemetry
    this.decode = decoder.decode
    this.#options = options
    this.#signal = signal
    this.#source = source
    this.#reader = new Reader(this.#source, {
      chain,
      name,
      asked,
      finality,
      pinned,
      matches: makeMatches(asked),
      onFilterChanged,
    })
    const milliseconds = millisecondsOf("lease", lease)
    this.session = new Session(checkpoint, { name, chain }, milliseconds)
    this.#heartbeats = setInterval(
      () => {
        // What it fails for, the next transaction fails for, too.
        void this.session.heartbeat().catch(() => {})
      },
      Math.max(milliseconds / 3, shortestBeat),
    )
  }

  static async open<ABI extends Abi, Tx>(
    chain: number,
    options: CommonOptions<ABI, Tx>,
    signal: AbortSignal,
    openSource: OpenSource,
  ): Promise<Consumer<ABI, Tx>> {
    const [decoder, telemetry] = await Promise.all([
      makeDecoder(options.events),
      loadTelemetry(options.name, chain),
    ])
    return new Consumer(chain, options, signal, decoder, telemetry, openSource(options, chain))
  }

  /** Waits for this process's turn, and loads the state; `undefined` when the signal aborts. */
  async acquire(): Promise<Saved | undefined> {
    for (;;) {
      const state = await this.retrying(() =>
        this.session.acquire(() => this.#reader.begin(this.#options.from), this.#signal),
      )
      if (state !== undefined) return this.#restart(state)
      if (this.#signal.aborted) return undefined
      // There is no journal yet.
      await pause(idle, this.#signal)
    }
  }

  /** The state as it is stored: after an error. */
  async reload(): Promise<Saved | undefined> {
    const state = await this.retrying(() => this.session.refresh())
    return state && this.#restart(state)
  }

  #restart(state: Saved): Saved {
    this.#reader.restart()
    this.#delivered = 0
    return state
  }

  /** Looks at the stream; `undefined` when the signal aborts. */
  async next(state: State): Promise<Look | undefined> {
    const found = await this.retrying(() => this.#reader.next(state))
    if (found === undefined) return undefined
    const { steps } = found
    const before = this.#serial
    this.#serial += Math.max(steps.length, 1)
    if (steps.length > 0) this.#delivered = this.#serial
    const end = { ...found.state, serial: this.#serial }
    if (found.reconciled) {
      this.telemetry.reconciled()
      this.#setBack = { serial: end.serial, lower: this.#lower(end.position) }
      // What is read again, now or by the next process, must not be trimmed meanwhile.
      this.#reportedAt = -Infinity
    }
    if (this.#reportedAt === -Infinity) await this.#report()
    return {
      ...found,
      state: end,
      steps: steps.map((step, i) => {
        const { position, stack } = step
        const serial = before + i + 1
        return { ...step, after: serial === end.serial ? end : { position, stack, serial } }
      }),
    }
  }

  /** Repeats what fails, until it succeeds, the signal aborts, or an error says that it will not. */
  async retrying<A>(use: () => Promise<A>): Promise<A | undefined> {
    for (;;) {
      try {
        const result = await use()
        this.#failures = 0
        return result
      } catch (error) {
        if (error instanceof ConsumerError || error instanceof Superseded) throw error
        if (this.#signal.aborted) return undefined
        await this.failed(error)
      }
    }
  }

  /** Reports a failure that is repeated, and waits. */
  async failed(error: unknown): Promise<void> {
    const { onWarning = (warning) => process.emitWarning(warning) } = this.#options
    onWarning(error instanceof Error ? error : new Error(String(error)))
    await pause(backoff(++this.#failures), this.#signal)
  }

  /**
   * Saves a state that needed no handler, from time to time, if the last change before it is known to be stored.
   *
   * @returns `undefined` if there is nothing to save now
   */
  save(state: Saved): Promise<void> | undefined {
    const { stored } = this.session
    const delivered = this.#delivered
    if (this.#isSaving || performance.now() - this.#savedAt < interval) return undefined
    if (stored.serial < delivered || !isAhead(state, stored)) return undefined
    this.#isSaving = true
    const save = async () => {
      try {
        await this.retrying(() =>
          this.session.update(({ serial }) => (serial < delivered ? undefined : state)),
        )
      } finally {
        this.#isSaving = false
        this.#savedAt = performance.now()
      }
    }
    return save()
  }

  /**
   * After a look: reports the progress, publishes the position from time to time, and waits for more.
   *
   * @param state the one after all that was delivered and committed
   */
  async rest({ waitAfter, head }: Look, state: State): Promise<void> {
    if (head !== undefined) {
      const lag = Math.max(head.number - state.position.block, 0)
      this.telemetry.lag(lag)
      const { block, final } = state.position
      const progress = `${block} ${final} ${lag}`
      if (progress !== this.#progress) {
        this.#progress = progress
        this.#options.onProgress?.({ chain: this.chain, through: block, finalized: final, lag })
      }
    }
    await this.#report()
    if (waitAfter !== undefined) {
      await this.retrying(() => this.#source.changed(waitAfter, idle, this.#signal))
    }
  }

  /** Publishes the position that is stored, not more often than once a second. */
  async #report(): Promise<void> {
    if (performance.now() - this.#reportedAt >= interval) await this.retrying(() => this.#reportNow())
  }

  /** This position, or the lower one after which entries are needed since a set-back. */
  #lower(position: Position): Position {
    const setBack = this.#setBack
    if (setBack === undefined || this.session.stored.serial >= setBack.serial) return position
    return this.#source.compare(setBack.lower.id, position.id) < 0 ? setBack.lower : position
  }

  async #reportNow(): Promise<void> {
    const { name, finality, pinned } = this.#options
    if (pinned === false) return
    const { id, offset, block } = this.#lower(this.session.stored.position)
    await this.#source.report(name, { id, offset, block, finality: String(finality) })
    this.#reportedAt = performance.now()
  }

  async close(): Promise<void> {
    clearInterval(this.#heartbeats)
    const report = async () => {
      await this.session.refresh()
      await this.#reportNow()
    }
    await report().catch(() => {})
    await this.session.release().catch(() => {})
    await this.#source.close()
  }
}

const isAhead = (state: State, saved: State) =>
  state.position.id !== saved.position.id ||
  state.position.final !== saved.position.final ||
  state.position.epoch !== saved.position.epoch ||
  state.position.filter !== saved.position.filter ||
  state.stack.length !== saved.stack.length
