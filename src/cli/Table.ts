/** Tables: columns as wide as their widest cell, as many of them as fit into a width. */
import { style } from "./Output.ts"

export interface Column {
  readonly title: string
  /** Numbers are aligned to the right. */
  readonly isNumber?: boolean
  /** The least width, where cells grow while a table is redrawn. */
  readonly width?: number
}

/** A text, and the colour in which it is shown (SGR). */
export type Cell = string | readonly [text: string, colour: number]

const gap = 2

/** A text is cut to no less than this; a column that would need more is left out. */
const narrowest = 8

const textOf = (cell: Cell): string => (typeof cell === "string" ? cell : cell[0])

/** Cuts a text to a width. */
export const cut = (text: string, width: number): string =>
  text.length <= width ? text : `${text.slice(0, Math.max(width - 1, 0))}…`

/** How wide each column is shown: the first that does not fit is cut if it is text, and the rest is left out. */
const widthsOf = (
  columns: ReadonlyArray<Column>,
  rows: ReadonlyArray<ReadonlyArray<Cell>>,
  width: number,
) => {
  const widths: Array<number> = []
  let left = width
  for (const [i, { title, isNumber = false, width = 0 }] of columns.entries()) {
    const wanted = Math.max(width, title.length, ...rows.map((row) => textOf(row[i]!).length))
    if (wanted > left && (isNumber || left < narrowest)) break
    widths.push(Math.min(wanted, left))
    if (wanted > left) break
    left -= wanted + gap
  }
  return widths
}

/**
 * The lines of a table, the titles first.
 *
 * @param rows a cell for each column
 * @param width what no line exceeds
 */
export const table = (
  columns: ReadonlyArray<Column>,
  rows: ReadonlyArray<ReadonlyArray<Cell>>,
  width = Infinity,
): ReadonlyArray<string> => {
  const widths = widthsOf(columns, rows, width)
  const line = (cells: ReadonlyArray<Cell>) =>
    widths
      .map((width, i) => {
        const text = cut(textOf(cells[i]!), width)
        const padded =
          columns[i]!.isNumber === true
            ? text.padStart(width)
            : i === widths.length - 1
              ? text
              : text.padEnd(width)
        return typeof cells[i] === "string" ? padded : style(cells[i]![1], padded)
      })
      .join(" ".repeat(gap))
      .trimEnd()
  return [line(columns.map(({ title }) => [title, 2])), ...rows.map(line)]
}
