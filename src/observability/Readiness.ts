/** Whether a chain is ready, and if not, why. Pure. */
import { liveWithin } from "./ChainStatus.ts"
import type { ChainStatus } from "./ChainStatus.ts"

/** A head is stale after this time (milliseconds) or after ten block times, whichever is longer. */
const staleAfter = 60_000
const blockTimes = 10

type Facts = Pick<
  ChainStatus,
  | "phase"
  | "head"
  | "headSince"
  | "blockTime"
  | "blocksBehind"
  | "target"
  | "breakerState"
  | "stored"
  | "final"
  | "finalDisagreement"
  | "standoffUntil"
  | "failures"
  | "holder"
>

/** The reasons why a chain is not ready; empty if it is ready. @param now monotonic milliseconds */
export const unready = (chain: Facts, now: number): ReadonlyArray<string> => {
  const last = chain.failures[0]
  const because = last ? `: ${last.text}` : ""
  switch (chain.phase) {
    case "halted":
      return [`halted${because}`]
    case "superseded":
      return ["another ingestor continues the journal with another filter"]
    case "store-unavailable":
      return [`the store accepts no moves${because}`]
    default:
  }
  if (chain.holder?.paused) {
    const { behind, paused, reader, release } = chain.holder
    const why = paused === "memory" ? "and Redis uses 80 % of its maxmemory" : "and the backlog is full"
    return [
      `publishing is paused: ${reader.replace(":", " ")} is ${behind} entries behind, ${why}; publishing resumes when the reader catches up, or after ${release}`,
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
    const effect = holds ? "nothing is finalized until they agree" : "the majority decides"
    reasons.push(`endpoints disagree about final block ${number} (${endpoints.join(", ")}): ${effect}`)
  }
  if (chain.standoffUntil !== undefined) {
    const wait = Math.max(Math.ceil((chain.standoffUntil - now) / 1000), 0)
    reasons.push(
      `another ingestor's node is on another fork: its blocks stay for ${wait} s more, unless the nodes agree earlier`,
    )
  }
  if (chain.head < (chain.final ?? 0)) {
    reasons.push(`the endpoint is at block ${chain.head}, below the finalized block ${chain.final}`)
  }
  const age = now - chain.headSince
  if (age > Math.max(blockTimes * chain.blockTime, staleAfter)) {
    reasons.push(`no head for ${Math.round(age / 1000)} s${because}`)
  }
  if (chain.target === undefined) reasons.push("no final block seen yet")
  if (chain.stored === undefined) reasons.push("nothing stored yet")
  else if (chain.blocksBehind > liveWithin) reasons.push(`${chain.blocksBehind} blocks behind`)
  return reasons
}
