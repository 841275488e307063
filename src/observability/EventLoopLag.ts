/** The delay of the event loop in the last minute, measured by how late the work of each second begins. Pure. */
import { sampleEvery } from "./Sparkline.ts"

/** One minute of samples: over all time, a current stall would not show. */
const samplesKept = 60

export class EventLoopLag {
  readonly #delays: Array<number> = []
  #due: number | undefined

  /** The work of a second begins. @param now monotonic milliseconds */
  begin(now: number): void {
    if (this.#due === undefined) return
    this.#delays.push(Math.max(now - this.#due, 0))
    if (this.#delays.length > samplesKept) this.#delays.shift()
  }

  /** It is done, and due again after the interval. */
  end(now: number): void {
    this.#due = now + sampleEvery
  }

  /** In seconds. @param share 0.5: the median */
  quantile(share: number): number {
    const sorted = this.#delays.toSorted((a, b) => a - b)
    return (sorted[Math.ceil(share * sorted.length) - 1] ?? 0) / 1000
  }
}
