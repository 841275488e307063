/** Whether a chain is ready, and if not, why. Pure. */
import { liveWithin } from "./ChainStatus.ts"
import type { ChainStatus } from "./ChainStatus.ts"

/** The least age of a head that is suspicious, in milliseconds; else ten block times. */
const staleAfter = 60_000
const blockTimes = 10

type Facts = Pick<
  ChainStatus,
  | "phase"
  | "head"
  | "headSince"
  | "blockTime"
  | "blocksBehind"
  | "breakerState"
  | "stored"
  | "final"
  | "finalDisagreement"
  | "standoffUntil"
  | "failures"
  | "holder"
>

/** Why a chain is not ready, as sentences; empty when it is. @param now monotonic milliseconds */
export const unready = (chain: Facts, now: number): ReadonlyArray<string> => {
  const last = chain.failures[0]
  const because = last ? `: ${last.text}` : ""
  switch (chain.phase) {
    case "halted":
      return [`halted${because}`]
    case "superseded":
      return ["another ingestor continues the journal with another filter"]
    case "store-unavailable":
      return [`the store does not take moves${because}`]
    default:
  }
  if (chain.holder?.paused) {
    const { behind, paused, reader, release } = chain.holder
    const why = paused === "memory" ? "and Redis uses 80 % of its maxmemory" : "and the backlog is full"
    return [
      `publishing is paused: ${reader.replace(":", " ")} is ${behind} entries behind, ${why}; it goes on when that reader reads on, or after ${release}`,
    ]
  }
  const reasons: Array<string> = []
  if (chain.breakerState._tag === "Open") {
    reasons.push(`the breaker is open after ${chain.breakerState.failures} failures${because}`)
  }
  if (chain.head === undefined) {
    reasons.push(chain.phase === "connecting" ? `no endpoint is connected${because}` : "no head yet")
    return reasons
  }
  if (chain.finalDisagreement !== undefined) {
    const { number, endpoints, holds } = chain.finalDisagreement
    const effect = holds ? "nothing is made final until they agree" : "the majority decides"
    reasons.push(`endpoints disagree about final block ${number} (${endpoints.join(", ")}): ${effect}`)
  }
  if (chain.standoffUntil !== undefined) {
    const wait = Math.max(Math.ceil((chain.standoffUntil - now) / 1000), 0)
    reasons.push(
      `another ingestor's node is on another fork: its blocks stay for ${wait} s more, unless the nodes agree before`,
    )
  }
  if (chain.head < (chain.final ?? 0)) {
    reasons.push(`the endpoint is at ${chain.head}, and ${chain.final} was final already`)
  }
  const age = now - chain.headSince
  if (age > Math.max(blockTimes * chain.blockTime, staleAfter)) {
    reasons.push(`no head for ${Math.round(age / 1000)} s${because}`)
  }
  if (chain.stored === undefined) reasons.push("nothing is stored yet")
  else if (chain.blocksBehind > liveWithin) reasons.push(`${chain.blocksBehind} blocks behind`)
  return reasons
}
