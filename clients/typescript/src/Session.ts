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

/** Another process has advanced the state. */
export class Superseded extends Error {
  override readonly name = "Superseded"

  constructor() {
    super("another process of this name reads now")
  }
}

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

/** Whether two states are stored alike. */
export const isSame = (one: State, other: State): boolean => {
  const [a, b] = [one.position, other.position]
  return (
    (["id", "identity", "epoch", "offset", "final"] as const).every((name) => a[name] === b[name]) &&
    one.stack.length === other.stack.length &&
    one.stack.every(
      (block, i) => block === other.stack[i] || identityOf(block) === identityOf(other.stack[i]!),
    )
  )
}

/**
 * A state whose blocks are marked: without a transaction, a handler may have run although its position was not saved. The next process
 * applies such a block again, or undoes it if it has gone.
 *
 * @throws ConsumerError if two of the blocks have the same number: only one of them can be stored
 */
const marked = ({ position, stack }: State, steps: ReadonlyArray<Step>): State => {
  const known = new Set(stack.map(({ hash }) => hash))
  const handled = new Set(steps.map(({ block }) => block.hash))
  const added = steps.flatMap(({ kind, block }) =>
    kind === "undo" || block.finalized || known.has(block.hash)
      ? []
      : [{ ...block, skipped: false, pending: true }],
  )
  const all = [
    ...stack.map((block) => (handled.has(block.hash) ? { ...block, pending: true } : block)),
    ...added,
  ]
  if (new Set(all.map(({ number }) => number)).size < all.length)
    throw new ConsumerError(
      "UNCOMMITTED",
      "commit a change before the next one is taken: an at-least-once checkpoint cannot store two blocks of the same number",
    )
  return { position, stack: all }
}

export class Session<Tx> {
  readonly #checkpoint: Checkpoint<Tx>
  readonly #reader: ReaderId
  readonly #lease: number
  readonly #owner = randomUUID()
  /** Heartbeats and transactions, one at a time. */
  readonly #writing = new Mutex()
  #isWriting = false
  /** The states that may be stored, by their beats: whether the last transaction was committed may be unknown. */
  #stored = new Map<number, State>()

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
  async acquire(begin: () => Promise<Position | undefined>, signal: AbortSignal): Promise<State | undefined> {
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
  async #take(found: Position | undefined, first: Position | undefined): Promise<State | undefined> {
    const { transaction, load, blocks, save } = this.#checkpoint
    const state = await transaction(async (tx) => {
      const now = await load(tx, this.#reader)
      if (now?.owner !== found?.owner || now?.beat !== found?.beat) return undefined
      const position = { ...(now ?? first!), owner: this.#owner, beat: (now?.beat ?? 0) + 1 }
      await save(tx, this.#reader, { position, remove: [], put: [] })
      return { position, stack: (await blocks(tx, this.#reader)).map(unpack) }
    })
    if (state !== undefined) this.#stored = new Map([[state.position.beat, state]])
    return state
  }

  /**
   * Saves a state in a transaction that is open.
   *
   * @throws Superseded if another process has saved meanwhile
   */
  async save(tx: Tx, next: State): Promise<void> {
    const base = await this.current(tx)
    const position = { ...next.position, owner: this.#owner, beat: Math.max(...this.#stored.keys()) + 1 }
    await this.#checkpoint.save(tx, this.#reader, { position, ...difference(base.stack, next.stack) })
    this.#stored = new Map([
      [base.position.beat, base],
      [position.beat, { ...next, position }],
    ])
  }

  /** Marks the blocks of steps whose handlers run next, without a transaction. @param saved the state before them */
  async announce(saved: State, steps: ReadonlyArray<Step>): Promise<void> {
    const state = marked(saved, steps)
    if (!isSame(state, saved)) await this.transaction((tx) => this.save(tx, state))
  }

  /**
   * The state that is stored, which an error of a transaction may have left unknown. It locks the position until the transaction
   * ends.
   *
   * @throws Superseded if another process reads now
   */
  async current(tx: Tx): Promise<State> {
    const now = await this.#checkpoint.load(tx, this.#reader)
    const state = now?.owner === this.#owner ? this.#stored.get(now.beat) : undefined
    if (state === undefined) throw new Superseded()
    return state
  }

  /** Runs a transaction, after those before it. */
  transaction<A>(run: (tx: Tx) => Promise<A>): Promise<A> {
    return this.#writing.run(async () => {
      this.#isWriting = true
      try {
        return await this.#checkpoint.transaction(run)
      } finally {
        this.#isWriting = false
      }
    })
  }

  /** The last state that was saved, or that may have been. */
  get #last(): State | undefined {
    return [...this.#stored.values()].at(-1)
  }

  /** Shows other processes of this name that this one is alive, if nothing else does so just now. */
  async heartbeat(): Promise<void> {
    if (this.#isWriting) return
    await this.transaction(async (tx) => this.save(tx, await this.current(tx)))
  }

  /** Leaves, so that another process can take over at once. */
  async release(): Promise<void> {
    if (this.#last === undefined) return
    await this.transaction(async (tx) => {
      const { load, save } = this.#checkpoint
      const now = await load(tx, this.#reader)
      if (now?.owner !== this.#owner) return
      await save(tx, this.#reader, {
        position: { ...now, owner: "", beat: now.beat + 1 },
        remove: [],
        put: [],
      })
    })
    this.#stored = new Map()
  }
}
