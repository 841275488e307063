/**
 * How much one push of a chain carries: a server may take less than ours expects (managed servers limit arguments, sizes
 * and times), and a slow link less than that in the time a command has. What is refused is halved, and grows back.
 */
import { callLimits } from "./Journal.ts"
import type { CallLimits, Push } from "./Journal.ts"
import type { StoreError } from "./Store.ts"

/** After so many pushes that were taken in a row, twice as much is tried. */
const takenToGrow = 20

/** What servers and gateways say of a command that is too large. */
const tooLarge =
  /too (big|large|many|long)|exceed|invalid (multi)?bulk length|max(imum)? (request|payload|command|query)|query buffer|payload/i

/** What they say with the same words of something else: how often they were asked, and by how many. */
const otherLimit = /requests? limit|connections/i

export class PushLimits {
  readonly #most: CallLimits
  #current: CallLimits
  #taken = 0

  /** @param most what the store is expected to take */
  constructor(most: CallLimits = callLimits) {
    this.#most = most
    this.#current = most
  }

  get current(): CallLimits {
    return this.#current
  }

  /**
   * A push failed. Answers whether it is to be cut smaller: it is more than one log or block, and it was refused for its
   * size, or not answered in time, or ended the connection once more after the store had answered: some close it without
   * a word (Redis with `client-query-buffer-limit`). Where less than usual is sent, once is enough.
   *
   * @param again whether the same push failed before
   */
  refused({ blocks }: Push, { reason, detail }: StoreError, again = false): boolean {
    this.#taken = 0
    const logs = blocks.reduce((sum, block) => sum + block.logs.length, 0)
    if (logs <= 1 && blocks.length <= 1) return false
    if (
      reason !== "timeout" &&
      !((again || this.#current !== this.#most) && reason === "unreachable") &&
      !(
        (reason === "refused" || reason === "unreachable") &&
        tooLarge.test(detail) &&
        !otherLimit.test(detail)
      )
    )
      return false
    const half = (most: number, of: number) => Math.max(Math.floor(Math.min(most, of) / 2), 1)
    this.#current = {
      logs: half(this.#current.logs, Math.max(logs, 2)),
      blocks: half(this.#current.blocks, Math.max(blocks.length, 2)),
      bytes: half(this.#current.bytes, Infinity),
    }
    return true
  }

  /** A push was taken. */
  taken(): void {
    if (this.#current === this.#most || ++this.#taken < takenToGrow) return
    this.#taken = 0
    const twice = (of: number, most: number) => Math.min(of * 2, most)
    const { logs, blocks, bytes } = this.#current
    const next = {
      logs: twice(logs, this.#most.logs),
      blocks: twice(blocks, this.#most.blocks),
      bytes: twice(bytes, this.#most.bytes),
    }
    const isMost =
      next.logs === this.#most.logs && next.blocks === this.#most.blocks && next.bytes === this.#most.bytes
    this.#current = isMost ? this.#most : next
  }
}
