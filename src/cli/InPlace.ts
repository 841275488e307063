/** Lines at the end of a terminal's output that are redrawn in place, and others that appear above them. */
export class InPlace {
  readonly #stream: NodeJS.WriteStream
  #lines: ReadonlyArray<string> = []

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  /** Where each line begins is known only as long as none is wrapped and none has left the terminal at its top. */
  get size(): { readonly columns: number; readonly rows: number } {
    const { columns, rows } = this.#stream
    return { columns: (columns || 80) - 1, rows: (rows || 24) - 1 }
  }

  /** Replaces the lines. They must fit into the size. */
  draw(lines: ReadonlyArray<string>): void {
    const text = lines.map((line) => `${line}\n`).join("")
    if (this.#lines.length > 0 || text !== "") this.#stream.write(this.#erasure + text)
    this.#lines = lines
  }

  /** Writes to the same terminal, above the lines. */
  above(write: () => void): void {
    const lines = this.#lines
    this.draw([])
    write()
    this.draw(lines)
  }

  /** Moves the cursor to the first line, from whatever column (a terminal shows `^C` where it is), and erases from there on. */
  get #erasure(): string {
    return this.#lines.length === 0 ? "" : `\r\u001b[${this.#lines.length}A\u001b[J`
  }
}
