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
import type { State } from "./Position.ts"
import { openRedis } from "./RedisSource.ts"
import { Session, Superseded, isSame } from "./Session.ts"
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
  #unreported: State | undefined
  #savedAt = -Infinity
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
  async acquire(): Promise<State | undefined> {
    this.#reader.restart()
    for (;;) {
      const state = await this.retrying(() =>
        this.session.acquire(() => this.#reader.begin(this.#options.from), this.#signal),
      )
      if (state !== undefined) return state
      if (this.#signal.aborted) return undefined
      // There is no journal yet.
      await pause(idle, this.#signal)
    }
  }

  /** The state as it is stored: after an error. */
  async reload(): Promise<State> {
    this.#reader.restart()
    return this.session.transaction((tx) => this.session.current(tx))
  }

  /** Looks at the stream. @param saved the state that is stored */
  async next(state: State, saved: State): Promise<Found | undefined> {
    const found = await this.retrying(() => this.#reader.next(state))
    if (found?.reconciled === true) {
      this.telemetry.reconciled()
      // What is read again, now or by the next process, must not be trimmed meanwhile.
      this.#reportedAt = -Infinity
      const isLower = this.#source.compare(found.state.position.id, saved.position.id) < 0
      await this.#report(isLower ? found.state : saved)
    } else if (found !== undefined && this.#reportedAt === -Infinity) await this.#report(saved)
    return found
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

  /** After a look without anything to do: saves and publishes the position from time to time, and waits for more. */
  async rest({ state, waitAfter, head }: Found, saved: State): Promise<State> {
    const { telemetry } = this
    let current = saved
    if (performance.now() - this.#savedAt >= interval && isAhead(state, saved)) {
      const isSaved = await this.retrying(() => this.#save(state, saved))
      if (isSaved === true) current = state
    }
    if (head !== undefined) {
      const lag = Math.max(head.number - state.position.block, 0)
      telemetry.lag(lag)
      const { block, final } = state.position
      const progress = `${block} ${final} ${lag}`
      if (progress !== this.#progress) {
        this.#progress = progress
        this.#options.onProgress?.({ chain: this.chain, through: block, finalized: final, lag })
      }
    }
    await this.#report(current)
    if (waitAfter !== undefined) {
      await this.retrying(() => this.#source.changed(waitAfter, idle, this.#signal))
    }
    return current
  }

  /** Saves a state, unless the one before it is not stored: its transaction was rolled back. */
  #save(state: State, saved: State): Promise<boolean> {
    return this.session.transaction(async (tx) => {
      const stored = await this.session.current(tx)
      // An earlier attempt may have succeeded.
      const isPossible = isSame(stored, saved) || isSame(stored, state)
      if (isPossible) await this.session.save(tx, state)
      this.#savedAt = performance.now()
      return isPossible
    })
  }

  /** Publishes the position that is stored, not more often than once a second. */
  async #report(state: State): Promise<void> {
    if (this.#options.pinned === false) return
    this.#unreported = state
    if (performance.now() - this.#reportedAt >= interval) await this.retrying(() => this.#reportNow())
  }

  async #reportNow(): Promise<void> {
    if (this.#unreported === undefined) return
    const { id, offset, block } = this.#unreported.position
    const { name, finality } = this.#options
    await this.#source.report(name, { id, offset, block, finality: String(finality) })
    this.#unreported = undefined
    this.#reportedAt = performance.now()
  }

  async close(): Promise<void> {
    clearInterval(this.#heartbeats)
    await this.#reportNow().catch(() => {})
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
