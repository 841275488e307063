/**
 * The state of one reader on one chain, and the right to advance it.
 *
 * The stored position has an owner and a beat, which rises with each transaction. Each transaction locks the position and compares
 * both, so that two processes of one name never apply the same block twice. Who finds another owner stands by, and takes over when
 * the beat has not risen for the length of the lease, or when the owner has left.
 */
import { randomUUID } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import type { Checkpoint, ReaderId } from "./Checkpoint.ts"
import { ConsumerError } from "./Errors.ts"
import { Mutex } from "./Mutex.ts"
import type { Step } from "./Plan.ts"
import type { AppliedBlock, Position, State } from "./Position.ts"
import { pack, unpack } from "./Position.ts"

/** A state that is stored, or that may be. */
export interface Saved extends State {
  /** Rises with the states that this process reads; 0: the one that it began with. */
  readonly serial: number
}

/** Another process has advanced the state, or this one's own is another one than it saved. */
export class Superseded extends Error {
  override readonly name = "Superseded"
  /** Whether the state is this process's own: a caller has rolled back more than is remembered, or the store was set back. */
  readonly isOwn: boolean

  constructor(isOwn: boolean) {
    super(isOwn ? "the stored position is not the last one" : "another process of this name reads now")
    this.isOwn = isOwn
  }
}

/** So many states are remembered, of which one is stored: a caller may roll back several. */
export const kept = 100

/** Two blocks with the same identity are stored alike. */
const identityOf = ({ hash, skipped, pending }: AppliedBlock) => `${hash}:${skipped}:${pending}`

/** The numbers of blocks to delete, and the blocks to write, between two stacks. */
const difference = (from: ReadonlyArray<AppliedBlock>, to: ReadonlyArray<AppliedBlock>) => {
  // Almost all of a long stack is the same from one state to the next.
  let same = 0
  while (same < from.length && from[same] === to[same]) same++
  const [removed, added] = [from.slice(same), to.slice(same)]
  const [before, after] = [new Set(removed.map(identityOf)), new Set(added.map(identityOf))]
  return {
    remove: removed.filter((block) => !after.has(identityOf(block))).map(({ number }) => number),
    put: added.filter((block) => !before.has(identityOf(block))).map(pack),
  }
}

const isSame = (one: ReadonlyArray<AppliedBlock>, other: ReadonlyArray<AppliedBlock>) =>
  one.length === other.length &&
  one.every((block, i) => block === other[i] || identityOf(block) === identityOf(other[i]!))

/**
 * A state whose blocks are marked: without a transaction, a handler may have run although its position was not saved. The next process
 * applies such a block again, or undoes it if it has gone.
 *
 * @throws ConsumerError if two of the blocks have the same number: only one of them can be stored
 */
export const marked = ({ position, stack, serial }: Saved, steps: ReadonlyArray<Step>): Saved => {
  const handled = new Set(steps.map(({ block }) => block.hash))
  const blocks = new Map(
    stack.map((block) => [block.hash, handled.has(block.hash) ? { ...block, pending: true } : block]),
  )
  // A block may be applied, retracted, and applied again.
  for (const { kind, block } of steps)
    if (kind === "apply" && !block.finalized && !blocks.has(block.hash))
      blocks.set(block.hash, { ...block, skipped: false, pending: true })
  const all = [...blocks.values()]
  if (new Set(all.map(({ number }) => number)).size < all.length)
    throw new ConsumerError(
      "UNCOMMITTED",
      "commit a change before the next one is taken: an at-least-once checkpoint cannot store two blocks of the same number",
    )
  return { position, stack: all, serial }
}

/** What a transaction saves; `undefined`: nothing. */
type Next<Tx> = (stored: Saved, tx: Tx) => Saved | undefined | Promise<Saved | undefined>

export class Session<Tx> {
  readonly #checkpoint: Checkpoint<Tx>
  readonly #reader: ReaderId
  readonly #lease: number
  readonly #owner = randomUUID()
  /** Heartbeats and transactions, one at a time. */
  readonly #writing = new Mutex()
  #isWriting = false
  /** The states that may be stored, by their beats: whether a transaction was committed may be unknown. */
  readonly #saved = new Map<number, Saved>()
  #beat = 0
  #stored: Saved | undefined

  /** @param lease how long an owner may be silent (milliseconds) */
  constructor(checkpoint: Checkpoint<Tx>, reader: ReaderId, lease: number) {
    this.#checkpoint = checkpoint
    this.#reader = reader
    this.#lease = lease
  }

  /**
   * Waits for the right to read, and loads the state.
   *
   * @param begin the position of a new reader; `undefined`: not yet
   * @returns `undefined` if the signal aborts, or if there is no position yet
   */
  async acquire(begin: () => Promise<Position | undefined>, signal: AbortSignal): Promise<Saved | undefined> {
    let seen: { readonly owner: string; readonly beat: number; readonly at: number } | undefined
    for (;;) {
      if (signal.aborted) return undefined
      const found = await this.#checkpoint.transaction((tx) => this.#checkpoint.load(tx, this.#reader))
      const first = found === undefined ? await begin() : undefined
      if (found === undefined && first === undefined) return undefined
      const isFree = found === undefined || found.owner === "" || found.owner === this.#owner
      if (seen === undefined || seen.owner !== found?.owner || seen.beat !== found.beat) {
        seen = { owner: found?.owner ?? "", beat: found?.beat ?? 0, at: performance.now() }
      }
      if (isFree || performance.now() - seen.at >= this.#lease) {
        const taken = await this.#take(found, first)
        if (taken !== undefined) return taken
      }
      await sleep(Math.min(1000, this.#lease / 4), undefined, { signal }).catch(() => {})
    }
  }

  /** Takes over a position that is still as it was found. */
  async #take(found: Position | undefined, first: Position | undefined): Promise<Saved | undefined> {
    const { transaction, load, blocks, save } = this.#checkpoint
    const state = await transaction(async (tx) => {
      const now = await load(tx, this.#reader)
      if (now?.owner !== found?.owner || now?.beat !== found?.beat) return undefined
      const position = { ...(now ?? first!), owner: this.#owner, beat: (now?.beat ?? 0) + 1 }
      await save(tx, this.#reader, { position, remove: [], put: [] })
      return { position, stack: (await blocks(tx, this.#reader)).map(unpack), serial: 0 }
    })
    if (state === undefined) return undefined
    this.#beat = state.position.beat
    this.#saved.clear()
    this.#settle(state)
    return state
  }

  /** Remembers that a state is stored. Those before it never will be. */
  #settle(saved: Saved): void {
    this.#stored = saved
    this.#saved.set(saved.position.beat, saved)
    for (const beat of this.#saved.keys()) if (beat < saved.position.beat) this.#saved.delete(beat)
  }

  /** The last state that is known to be stored. That of a transaction of the caller is not before it was read again. */
  get stored(): Saved {
    if (this.#stored === undefined) throw new Superseded(false)
    return this.#stored
  }

  /**
   * Saves a state in a transaction that is open. The position is locked until that ends.
   *
   * @param next from the state that is stored, which an error of a transaction may have left unknown
   * @returns the state that is stored then
   * @throws Superseded if another process reads now
   */
  async within(tx: Tx, next: Next<Tx>): Promise<Saved> {
    const base = await this.#current(tx)
    const following = await next(base, tx)
    if (following === undefined) return base
    const position = { ...following.position, owner: this.#owner, beat: ++this.#beat }
    const saved = { ...following, position }
    // Before it is saved: the reply may be lost.
    this.#saved.set(position.beat, saved)
    for (const beat of this.#saved.keys()) {
      if (this.#saved.size <= kept) break
      if (beat !== base.position.beat) this.#saved.delete(beat)
    }
    const changed = difference(base.stack, following.stack)
    await this.#checkpoint.save(tx, this.#reader, { position, ...changed })
    return saved
  }

  async #current(tx: Tx): Promise<Saved> {
    const now = await this.#checkpoint.load(tx, this.#reader)
    const isOwn = now?.owner === this.#owner
    const state = isOwn ? this.#saved.get(now.beat) : undefined
    if (state === undefined) throw new Superseded(isOwn)
    return state
  }

  /** Saves a state in a transaction of its own, after those before it. @param next as of `within` */
  update(next: Next<Tx>): Promise<Saved> {
    return this.#writing.run(async () => {
      this.#isWriting = true
      try {
        const saved = await this.#checkpoint.transaction((tx) => this.within(tx, next))
        this.#settle(saved)
        return saved
      } finally {
        this.#isWriting = false
      }
    })
  }

  /** Reads which state is stored. */
  refresh(): Promise<Saved> {
    return this.update(() => undefined)
  }

  /** Marks the blocks of steps whose handlers run next, without a transaction. @param check throws if they must not */
  announce(steps: ReadonlyArray<Step>, check: (stored: Saved) => void = () => {}): Promise<Saved> {
    return this.update((stored) => {
      check(stored)
      const announced = marked(stored, steps)
      return isSame(announced.stack, stored.stack) ? undefined : announced
    })
  }

  /** Shows other processes of this name that this one is alive, if nothing else does so just now. */
  async heartbeat(): Promise<void> {
    if (!this.#isWriting && this.#stored !== undefined) await this.update((stored) => stored)
  }

  /** Leaves, so that another process can take over at once. */
  async release(): Promise<void> {
    if (this.#stored === undefined) return
    const { transaction, load, save } = this.#checkpoint
    await this.#writing.run(() =>
      transaction(async (tx) => {
        const now = await load(tx, this.#reader)
        if (now?.owner !== this.#owner) return
        const position = { ...now, owner: "", beat: now.beat + 1 }
        await save(tx, this.#reader, { position, remove: [], put: [] })
      }),
    )
    this.#stored = undefined
    this.#saved.clear()
  }
}
