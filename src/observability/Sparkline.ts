/** One sample per second of a chain's last five minutes, for the curves of the page. Pure. */

/** Milliseconds. */
export const sampleEvery = 1000

/** Five minutes. */
export const samplesKept = 300

/** The reported rate is the mean of this many samples. */
const samplesOfRate = 5

export class Sparkline {
  /** Seconds. */
  readonly lag: Array<number> = []
  /** Logs published in each second. */
  readonly rate: Array<number> = []
  #before: { readonly at: number; readonly published: number } | undefined

  /** @param lag milliseconds */
  sample(at: number, lag: number, published: number): void {
    const before = this.#before ?? { at, published }
    const millis = at - before.at
    this.#before = { at, published }
    this.lag.push(Math.round(lag / 100) / 10)
    this.rate.push(millis > 0 ? Math.round(((published - before.published) * 1000) / millis) : 0)
    for (const series of [this.lag, this.rate]) if (series.length > samplesKept) series.shift()
  }

  /** The current rate in logs per second. */
  get perSecond(): number {
    const last = this.rate.slice(-samplesOfRate)
    return last.reduce((sum, rate) => sum + rate, 0) / Math.max(last.length, 1)
  }
}
