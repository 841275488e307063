/** What happens between a chain and the store. */
import type { Wait } from "../Retry.ts"
import type { Holder } from "./Retention.ts"
import type { StoreError } from "./StoreError.ts"

export type StoreEvent =
  /** The delay before the next probe, or before the refused move is submitted again. */
  | { readonly _tag: "StoreRetrying"; readonly error: StoreError; readonly wait: Wait }
  | { readonly _tag: "StoreAvailable"; readonly seconds: number }
  /** The breaker closed after this many failures. */
  | { readonly _tag: "StoreRecovered"; readonly failures: number }
  /** The stream was trimmed. `holder`: the pinned reader that delays trimming, if there is one. */
  | { readonly _tag: "StreamTrimmed"; readonly holder: Holder | undefined }
