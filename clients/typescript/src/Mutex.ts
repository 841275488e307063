/** Runs one function at a time. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve()

  run<A>(use: () => Promise<A>): Promise<A> {
    const next = this.#last.then(use, use)
    this.#last = next.catch(() => {})
    return next
  }
}
