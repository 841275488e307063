/**
 * How much one push of a chain carries. A server may accept less than expected (managed servers limit arguments, sizes and
 * times), and a slow link carries less within the command timeout. A refused push halves the limits; they grow back.
 */
import { callLimits } from "./Journal.ts"
import type { CallLimits, Push } from "./Journal.ts"
import type { StoreError } from "./StoreError.ts"

/** After this many accepted pushes in a row the limits double. */
const pushesToGrow = 20

/** How servers and gateways report a command that is too large. */
const tooLarge =
  /too (big|large|many|long)|exceed|invalid (multi)?bulk length|max(imum)? (request|payload|command|query)|query buffer|payload/i

/** Messages with the same words about something else: the request rate, or the number of connections. */
const otherLimit = /requests? limit|connections/i

export class PushLimits {
  readonly #most: CallLimits
  #current: CallLimits
  #acceptedInARow = 0

  /** @param most the limits that the store is expected to accept */
  constructor(most: CallLimits = callLimits) {
    this.#most = most
    this.#current = most
  }

  get current(): CallLimits {
    return this.#current
  }

  /**
   * A push failed. Returns whether to retry it in smaller pieces: it has more than one log or block, and it was refused for
   * its size, or timed out, or the connection closed. Some servers close the connection without an error (Redis with
   * `client-query-buffer-limit`), so a closed connection counts when the same push failed before and the store has answered
   * since, or when the limits are already reduced.
   *
   * @param failedBefore whether the same push failed before
   */
  refused({ blocks }: Push, { reason, detail }: StoreError, failedBefore = false): boolean {
    this.#acceptedInARow = 0
    const logs = blocks.reduce((sum, block) => sum + block.logs.length, 0)
    if (logs <= 1 && blocks.length <= 1) return false
    const isClosed = reason === "unreachable" && (failedBefore || this.#current !== this.#most)
    const isTooLarge = tooLarge.test(detail) && !otherLimit.test(detail)
    const isRefused = (reason === "refused" || reason === "unreachable") && isTooLarge
    if (reason !== "timeout" && !isClosed && !isRefused) return false
    const { logs: mostLogs, blocks: mostBlocks, bytes } = this.#current
    const half = (most: number, size = most) => Math.max(Math.floor(Math.min(most, size) / 2), 1)
    this.#current = {
      logs: half(mostLogs, Math.max(logs, 2)),
      blocks: half(mostBlocks, Math.max(blocks.length, 2)),
      bytes: half(bytes),
    }
    return true
  }

  /** A push was accepted. */
  accepted(): void {
    if (this.#current === this.#most || ++this.#acceptedInARow < pushesToGrow) return
    this.#acceptedInARow = 0
    const { logs, blocks, bytes } = this.#most
    const twice = {
      logs: Math.min(this.#current.logs * 2, logs),
      blocks: Math.min(this.#current.blocks * 2, blocks),
      bytes: Math.min(this.#current.bytes * 2, bytes),
    }
    const isMost = twice.logs === logs && twice.blocks === blocks && twice.bytes === bytes
    this.#current = isMost ? this.#most : twice
  }
}
