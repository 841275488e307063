/** One direction of a connection through a proxy: bytes in order, as late and as slow as the weather has it. */
import type { Socket } from "node:net"

export interface Conditions {
  /** Milliseconds that everything takes in this direction, and up to how many more it may take. */
  readonly latency: number
  readonly jitter: number
  /** Bytes that get through in a second. */
  readonly rate: number
}

export const unimpaired: Conditions = { latency: 0, jitter: 0, rate: Infinity }

/** Milliseconds between two drops of a slow drip. */
const drop = 20

export class Pipe {
  readonly #to: Socket
  readonly #random: () => number
  #conditions = unimpaired
  #queue: Array<{ data: Buffer; readonly due: number }> = []
  #timer: NodeJS.Timeout | undefined
  /** When the last of the queue is due: what comes later may not overtake it. */
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

  /** Changes the weather. Better weather is felt at once. */
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
      const bytes = Math.max(Math.floor((rate * drop) / 1000), 1)
      if (next.data.length > bytes) {
        this.#to.write(next.data.subarray(0, bytes))
        next.data = next.data.subarray(bytes)
        return this.#later(drop)
      }
      this.#queue.shift()
      this.#to.write(next.data)
      if (rate !== Infinity) return this.#later(drop)
    }
  }

  #later(millis: number): void {
    // Slowness is the fault that this pipe makes: nothing waits for it.
    this.#timer = setTimeout(() => this.#pump(), millis)
  }
}
