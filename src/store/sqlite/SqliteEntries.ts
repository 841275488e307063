/** The entries of each chain. */
import { Effect } from "effect"
import { entryFields } from "../../Domain.ts"
import type { Entry } from "../../Domain.ts"
import { lastBelow, pageSize, paged } from "../Entries.ts"
import type { Entries } from "../Entries.ts"
import type { SqliteFile } from "./SqliteFile.ts"
import type { EventRow, Statements } from "./Statements.ts"

const entryOf = (row: EventRow): Entry => {
  const entry: Record<string, string> = {}
  for (const field of entryFields) {
    const value = field === "removed" ? row.removed === 1 : row[field]
    if (value !== null) entry[field] = String(value)
  }
  return entry as Entry
}

export const make = (sql: Statements, { attempt }: Pick<SqliteFile, "attempt">): Entries["Service"] => ({
  after: (chain, after) => {
    const read = (after = "0") =>
      attempt("read", () =>
        sql
          .eventsAfter(chain, Number(after), pageSize)
          .map((row) => ({ id: String(row.id), entry: entryOf(row) })),
      )
    return paged(read, after)
  },
  seek: Effect.fnUntraced(function* (chain, block) {
    const { first, last } = yield* attempt("seek", () => sql.bounds(chain, chain)!)
    if (first === null || last === null) return undefined
    const id = yield* lastBelow(block, first, last, (id) =>
      attempt("seek", () => {
        const [found] = sql.eventsAfter(chain, id - 1, 1)
        return found && { place: found.id, block: found.block_number }
      }),
    )
    return id === undefined ? undefined : String(id)
  }),
})
