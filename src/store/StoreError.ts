/** Why a store failed. */
import { Schema } from "effect"
import type { ChainId } from "../Domain.ts"
import { journalVersion } from "./Journal.ts"

/**
 * Why a store failed. Every reason is worth a retry, and none loses data. `newer`: a later release wrote this chain's
 * journal.
 */
export const StoreReason = Schema.Literals([
  "unreachable",
  "timeout",
  "read-only",
  "full",
  "loading",
  "refused",
  "corrupt",
  "newer",
])
export type StoreReason = typeof StoreReason.Type

export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.String,
  reason: StoreReason,
  detail: Schema.String,
}) {
  override get message() {
    return `store ${this.operation} failed (${this.reason}): ${this.detail}`
  }
}

/** The journal has a version that this release does not know, so this release neither reads nor writes it. */
export const newerJournal = (operation: string, version: number): StoreError =>
  new StoreError({
    operation,
    reason: "newer",
    detail: `the journal has version ${version} and this release writes version ${journalVersion}: run the release that wrote it, or a later one`,
  })

/** A chain's head, window and stream contradict each other: another program changed what is stored. */
export const corruptJournal = (chain: ChainId, why: string): StoreError =>
  new StoreError({
    operation: "load",
    reason: "corrupt",
    detail: `the stored journal of chain ${chain} is inconsistent: ${why}. Restore what is missing, or start over with event-ingestor reset`,
  })
