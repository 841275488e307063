/** Reads the stream of one chain from a state on: what to do next, and the state after it. */
import { identityOf } from "./Entry.ts"
import type { Head } from "./Entry.ts"
import { ResetError, TrimmedError, VersionError } from "./Errors.ts"
import { assertIncluded, assertStillIncluded } from "./Filter.ts"
import type { Asked } from "./Filter.ts"
import { Backlog } from "./Backlog.ts"
import { limitOf, plan, wholeNumber } from "./Plan.ts"
import type { Step, Wanted } from "./Plan.ts"
import type { Position, State } from "./Position.ts"
import { reconcile, standingOf } from "./Reconcile.ts"
import { firstNumberOf, knownVersion } from "./Source.ts"
import type { Snapshot, Source } from "./Source.ts"

/** Where a new reader begins. */
export type From = "earliest" | "now" | number

/** A filter of the ingestor that replaced another one. */
export interface FilterChange {
  readonly chain: number
  /** Fingerprints. */
  readonly before: string
  readonly after: string
  /** The new filter as JSON, `[addresses, topics]`, if the ingestor says so. */
  readonly content: string | undefined
}

export interface ReaderOptions extends Wanted {
  readonly chain: number
  readonly name: string
  readonly asked: Asked
  /** Whether its position is published. */
  readonly pinned: boolean
  readonly onFilterChanged: ((change: FilterChange) => void | Promise<void>) | undefined
}

/** What a look at the stream found. */
export interface Found {
  readonly steps: ReadonlyArray<Step>
  readonly state: State
  /** Whether these steps follow from a store that was set back. */
  readonly reconciled: boolean
  /** `undefined` while there is no journal. */
  readonly head: Head | undefined
  /** Nothing more can be done before there is an entry after this one, or the head changes. */
  readonly waitAfter: string | undefined
}

/** The entries that are read at once. */
const pageSize = 1000

export class Reader {
  readonly #source: Source
  readonly #options: ReaderOptions
  #backlog: Backlog | undefined
  /** A block that waits for finality or confirmations, and the head's block of which only a part is written. */
  #held: number | undefined
  #partOf: string | undefined
  #viewSize = pageSize
  /** Nothing was found yet from a state that another process may have saved. */
  #isFirst = true

  constructor(source: Source, options: ReaderOptions) {
    this.#source = source
    this.#options = options
  }

  /** Begins from a state that was loaded. */
  restart(): void {
    this.#forget()
    this.#isFirst = true
  }

  /** Forgets what it knows of later entries. */
  #forget(): void {
    this.#backlog = undefined
    this.#held = undefined
    this.#partOf = undefined
    this.#viewSize = pageSize
  }

  /**
   * The position of a new reader; `undefined` while there is no journal.
   *
   * @throws TrimmedError if entries from there on are not in the stream
   */
  async begin(from: From): Promise<Position | undefined> {
    const { chain } = this.#options
    const source = this.#source
    const snapshot = await source.snapshot({ known: [], after: source.lowest, count: 0 })
    const { head, last, length } = snapshot
    if (head === undefined) return undefined
    this.#checkVersion(head)
    if (head.filterContent !== undefined) assertIncluded(chain, head.filterContent, this.#options.asked)
    const start = { epoch: head.epoch, filter: head.filter, owner: "", beat: 0 }
    if (from === "now") {
      const [newest] = last === undefined ? [] : await source.readBack(last, 1)
      const block = wholeNumber(head)
      return {
        ...start,
        id: newest?.id ?? source.lowest,
        identity: newest === undefined ? "" : identityOf(newest),
        offset: head.added,
        final: head.number,
        block,
      }
    }
    const firstNumber = firstNumberOf(head, snapshot)
    const block = from === "earliest" ? head.startNumber : from
    if (block < firstNumber)
      throw new TrimmedError(chain, `from block ${block} on was asked for`, firstNumber)
    const position = {
      id: source.lowest,
      identity: "",
      offset: head.added - length,
      final: block - 1,
      block: block - 1,
    }
    return { ...start, ...position }
  }

  #checkVersion({ version }: Head): void {
    if (version > knownVersion) throw new VersionError(version, knownVersion)
  }

  async #checkFilter(head: Head, { filter }: Position): Promise<void> {
    if (head.filter === filter) return
    const { chain, asked, onFilterChanged } = this.#options
    if (onFilterChanged === undefined) assertStillIncluded(chain, head.filterContent, asked)
    else if (head.filterContent !== undefined) assertIncluded(chain, head.filterContent, asked)
    await onFilterChanged?.({ chain, before: filter, after: head.filter, content: head.filterContent })
  }

  /**
   * Looks at the stream once.
   *
   * @throws TrimmedError, ResetError, FilterError, VersionError; SourceUnavailable if another attempt may succeed
   */
  async next(state: State): Promise<Found> {
    const source = this.#source
    const { position } = state
    for (let isExtended = false; ;) {
      const backlog = this.#known(position)
      const range = backlog?.next(this.#viewSize)
      // A reader that waits first looks for new entries.
      const isWaiting = this.#isStuck && (!isExtended || this.#waiting(state) !== undefined)
      const most = backlog === undefined ? pageSize : backlog.count
      const snapshot = await source.snapshot({
        known: [position.id, ...(backlog === undefined ? [] : [backlog.horizon.id])],
        after: position.id,
        upTo: range?.to,
        count: isWaiting ? 0 : most,
      })
      const { head, last = source.lowest, known, page } = snapshot
      if (head === undefined) return { steps: [], state, reconciled: false, head, waitAfter: last }
      const current = await this.#checked(state, { ...snapshot, head })
      if (current === undefined) {
        this.#forget()
        const found = await reconcile(source, state, { ...snapshot, head }, this.#options, identityOf)
        if (found === undefined) continue
        this.#isFirst = false
        return { ...found, reconciled: true, head, waitAfter: undefined }
      }
      if (
        backlog !== undefined &&
        (known[1] === undefined || identityOf(known[1]) !== backlog.horizon.identity)
      ) {
        this.#forget()
        continue
      }
      const isCutPage = backlog === undefined && page.length === pageSize
      if (isCutPage || (isWaiting && !isExtended)) {
        isExtended = true
        const extended = await Backlog.extend(source, backlog, position.id, { head, last }, pageSize)
        if (extended === undefined) {
          this.#forget()
          continue
        }
        this.#backlog = extended.backlog
        // After a reorg, a lower block may be the next one.
        if (this.#held !== undefined) this.#held = Math.min(this.#held, extended.minimum)
        // What was read page by page is valid if the last entry of it is still there in the next snapshot.
        if (this.#backlog.horizon.id !== backlog?.horizon.id || this.#waiting(current) === undefined) continue
      }
      const waiting = this.#waiting(current)
      if (waiting !== undefined) return { ...waiting, reconciled: false, head, waitAfter: last }

      const horizon = backlog?.horizon ?? head
      const { laterMinimum, isAtHorizon } = range ?? { laterMinimum: Infinity, isAtHorizon: true }
      const planned = plan(current, { entries: page, horizon, laterMinimum, isAtHorizon }, this.#options)
      if (planned.isCut) {
        this.#viewSize *= 2
        continue
      }
      this.#viewSize = pageSize
      this.#held = planned.held
      const isUnmoved = planned.steps.length === 0 && planned.state.position.id === position.id
      this.#partOf = isUnmoved && planned.held === undefined && page.length > 0 ? horizon.hash : undefined
      if (backlog === undefined && this.#isStuck) this.#backlog = Backlog.ofPage(page, head)
      const isAtEnd = backlog === undefined || (isUnmoved && this.#isStuck)
      return { ...planned, reconciled: false, head, waitAfter: isAtEnd ? last : undefined }
    }
  }

  /** Whether a block waits. */
  get #isStuck(): boolean {
    return this.#held !== undefined || this.#partOf !== undefined
  }

  /** What is known of the entries after a position. */
  #known({ id }: Position): Backlog | undefined {
    this.#backlog = this.#backlog?.from(id, this.#source.compare)
    if (this.#backlog?.isConsumed === true) this.#forget()
    return this.#backlog
  }

  /** The state with the epoch and the filter of the head; `undefined` if the store was set back. */
  async #checked(state: State, snapshot: Snapshot & { readonly head: Head }): Promise<State | undefined> {
    const { chain, name } = this.#options
    const { position } = state
    const { head } = snapshot
    this.#checkVersion(head)
    const standing = standingOf(position, snapshot, this.#source, identityOf)
    if (standing === "reset") throw new ResetError(chain, name)
    if (standing === "trimmed") {
      const needed = `entries after block ${position.block} are needed`
      throw new TrimmedError(chain, needed, firstNumberOf(head, snapshot))
    }
    await this.#checkFilter(head, position)
    // A block that was about to be applied, or retracted, may be on either side of the position.
    const isUncertain = this.#isFirst && state.stack.some(({ pending }) => pending)
    return standing === "set back" || isUncertain ? undefined : renew(state, head)
  }

  /** The state while all that could be delivered next waits for the end of a block, or for a higher head. */
  #waiting(state: State): Pick<Found, "steps" | "state"> | undefined {
    const horizon = this.#backlog?.horizon
    if (horizon === undefined) return undefined
    if (this.#partOf !== undefined && horizon.part > 0 && horizon.hash === this.#partOf)
      return { steps: [], state }
    const limit = limitOf(this.#options.finality, horizon)
    if (this.#held === undefined || limit >= this.#held) return undefined
    // Blocks below the one that waits are complete.
    const final = Math.max(state.position.final, Math.min(horizon.finalNumber, limit))
    const position = { ...state.position, final, block: Math.min(wholeNumber(horizon), limit) }
    return { steps: [], state: { position, stack: state.stack.filter(({ number }) => number > final) } }
  }
}

const renew = ({ position, stack }: State, { epoch, filter }: Head): State => ({
  position: { ...position, epoch, filter },
  stack,
})
