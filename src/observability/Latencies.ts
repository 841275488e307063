/** The most recent latencies of a chain, for the median and the 99th percentile on the page. */

const kept = 1000

export class Latencies {
  readonly #values: Array<number> = []
  #next = 0

  /** @param millis from receiving a head to the store's acknowledgement */
  record(millis: number): void {
    this.#values[this.#next] = millis
    this.#next = (this.#next + 1) % kept
  }

  /** A quantile in milliseconds; `undefined` without a value. @param share 0 … 1 */
  quantile(share: number): number | undefined {
    const sorted = this.#values.toSorted((a, b) => a - b)
    return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)]
  }
}
