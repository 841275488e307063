/** What the errors of SQLite and of its files mean: one row each. */
import { Data } from "effect"
import { newerJournal, StoreError } from "../StoreError.ts"
import type { StoreReason } from "../StoreError.ts"

/** SQLite's primary result codes, https://www.sqlite.org/rescode.html. */
const reasons: Readonly<Record<number, StoreReason>> = {
  5: "timeout",
  6: "timeout",
  8: "read-only",
  10: "unreachable",
  11: "corrupt",
  13: "full",
  14: "unreachable",
  26: "corrupt",
}

/** Thrown inside a transaction: this release does not know the version of the journal. */
export class NewerVersion extends Data.Error<{ readonly version: number }> {}

/** Error codes of the system, from creating directories and inspecting files. */
const systemReasons: Readonly<Record<string, StoreReason>> = {
  EROFS: "read-only",
  ENOSPC: "full",
  EDQUOT: "full",
}

export const storeError = (operation: string, path: string, cause: unknown): StoreError => {
  if (cause instanceof NewerVersion) return newerJournal(operation, cause.version)
  if (cause instanceof StoreError) return cause
  const { code, errcode, message } = cause as NodeJS.ErrnoException & { readonly errcode?: number }
  const reason =
    errcode === undefined && (cause as NodeJS.ErrnoException).syscall !== undefined
      ? (systemReasons[code ?? ""] ?? "unreachable")
      : (reasons[(errcode ?? 0) & 0xff] ?? "refused")
  return new StoreError({ operation, reason, detail: `${path}: ${message ?? String(cause)}` })
}

/** After these errors a new connection may succeed where this one cannot, such as one to a file that was read-only. */
export const endsConnection: ReadonlySet<StoreReason> = new Set(["read-only", "unreachable", "corrupt"])
