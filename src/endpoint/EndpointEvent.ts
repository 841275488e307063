/** What happens to the endpoints of a chain. `endpoint` is the public name of one. */
import type { Breaker, Wait } from "../Retry.ts"
import type { Capabilities } from "./Capabilities.ts"
import type { Connection } from "./Connection.ts"
import type { EndpointError } from "./EndpointError.ts"
import type { ReceivedHead } from "./Heads.ts"
import type { RateLimiter } from "./RateLimiter.ts"
import type { Outcome } from "./RpcClient.ts"

/** Events without a line in the log. */
export type SilentEndpointEvent =
  /** What the endpoint keeps across its connections. */
  | {
      readonly _tag: "EndpointMaintained"
      readonly endpoint: string
      readonly breaker: Breaker
      readonly capabilities: Capabilities
      readonly rateLimiter: RateLimiter
    }
  | {
      readonly _tag: "RequestEnded"
      readonly endpoint: string
      readonly method: string
      readonly outcome: Outcome
      readonly millis: number
    }
  /** A head was announced. `blockTime`: the observed milliseconds between blocks; 0 while unknown. */
  | { readonly _tag: "HeadAnnounced"; readonly head: ReceivedHead; readonly blockTime: number }
  /** The endpoint in use confirmed that there is no newer block. */
  | { readonly _tag: "ChainIdle" }

/** A bug in this program; `during` says what was going on. */
export interface DefectCaught {
  readonly _tag: "DefectCaught"
  readonly during: string
  readonly defect: unknown
}

export type EndpointEvent =
  | DefectCaught
  | {
      readonly _tag: "EndpointConnected"
      readonly endpoint: string
      readonly connection: Pick<Connection, "polled">
    }
  /** The connection ended, or could not be made. */
  | { readonly _tag: "EndpointFailed"; readonly endpoint: string; readonly error: EndpointError }
  /** The delay before the next attempt to connect. */
  | {
      readonly _tag: "EndpointRetrying"
      readonly endpoint: string
      readonly error: EndpointError
      readonly wait: Wait
    }
  /** The breaker closed after this many failures. */
  | { readonly _tag: "EndpointRecovered"; readonly endpoint: string; readonly failures: number }
  /** `newHeads` was refused. */
  | { readonly _tag: "HeadsPolled"; readonly endpoint: string; readonly reason: string }
  /**
   * The chain is followed over this endpoint instead of `from`. `reason`: why the connection of `from` ended; without it,
   * the chain fails back to a preferred endpoint.
   */
  | {
      readonly _tag: "EndpointSwitched"
      readonly endpoint: string
      readonly polled: boolean
      readonly from: string | undefined
      readonly reason: string | undefined
    }
