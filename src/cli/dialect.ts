/** What a node's headers and logs are like, and what that means for the service: in words. Pure. */
import { variablePrefix } from "../config/Chains.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import type { Header } from "../Domain.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { bitsSet, bloomOf, isZero } from "../logs/Bloom.ts"
import { isUnfiltered } from "../logs/Filter.ts"
import { hasIndexGaps } from "../logs/Integrity.ts"

/** One line of `check`. */
export interface Finding {
  readonly subject: string
  readonly level: "ok" | "warning" | "failure"
  readonly detail: string
  /** What to do about it. */
  readonly fix?: string
}

/** A finding about the endpoint at hand. */
export type Trait = Omit<Finding, "subject">

/** The variable of a chain. */
export const variable = ({ name }: Pick<ChainConfig, "name">, end: string): string =>
  `${variablePrefix(name)}_${end}`

/** What one endpoint can hide; README and GUARANTEES say the same. */
export const oneEndpoint =
  "One endpoint alone can hide a log only by leaving it out each time it is asked, when the block is new and again when it is final (once for history, or with `AUDIT=off`): a log under a filter, and without a filter the last logs of a block whose `logsBloom` does not show it."

/** Logs as they were read without a filter, and the header of their block. */
export interface Sample {
  readonly header: Header
  readonly logs: ReadonlyArray<PlacedLog>
}

type BloomKind = "usable" | "zero" | "all ones" | "missing"

const bloomKind = ({ logsBloom: bloom }: Pick<Header, "logsBloom">): BloomKind => {
  if (bloom === undefined) return "missing"
  if (isZero(bloom)) return "zero"
  return bitsSet(bloom) === 2048 ? "all ones" : "usable"
}

/** One usable bloom among several headers shows that the node computes them. */
const bloomKinds = (headers: ReadonlyArray<Header>): string => {
  const kinds = new Set(headers.map(bloomKind))
  return kinds.has("usable") ? "usable" : [...kinds].join(" or ")
}

/**
 * The blooms of headers, by where they come from: some chains announce other ones than they answer when asked.
 *
 * @param announced a header as it was announced, and the same block's when fetched
 */
export const blooms = (
  chain: Pick<ChainConfig, "name" | "logsBloom">,
  fetched: ReadonlyArray<Header>,
  announced: readonly [Header, Header | undefined] | undefined,
  sample: Sample | undefined,
): Trait => {
  const usual = bloomKinds(fetched)
  const told = announced && bloomKind(announced[0])
  const isSame = told === "zero" && announced?.[1] !== undefined && bloomKind(announced[1]) === told
  const second = told === undefined ? "" : `, announced ${told}${isSame ? " (a block without logs)" : ""}`
  const what = `logsBloom: fetched ${usual}${second}`
  if (chain.logsBloom === "ignore") return { level: "ok", detail: `${what}; ignored, as LOGS_BLOOM says` }
  const isWrong =
    sample !== undefined &&
    bloomKind(sample.header) === "usable" &&
    bloomOf(sample.logs) !== sample.header.logsBloom
  if (isWrong) {
    return {
      level: "warning",
      detail: `${what}; wrong: the ${sample.logs.length} logs of block ${sample.header.number} make another one`,
      fix: `set ${variable(chain, "LOGS_BLOOM")}=ignore`,
    }
  }
  const so =
    usual === "usable" || told === "usable"
      ? ""
      : "; as long as no other is seen, every block is asked for its logs"
  return { level: "ok", detail: what + so }
}

/** How the logs of a block are numbered: what a log's identity is made of. */
export const indexes = (
  { filter }: Pick<ChainConfig, "filter">,
  sample: Sample | undefined,
  hasReceipts: boolean,
): Trait => {
  const ok = (how: string): Trait => ({ level: "ok", detail: `log indexes: ${how}` })
  if (sample === undefined) return ok("unknown, as no block can be read without a filter")
  const { logs, header } = sample
  if (logs.length === 0) return ok("unknown, as the blocks that were read have no logs")
  if (new Set(logs.map(({ index }) => index)).size < logs.length) {
    const each = [...Map.groupBy(logs, ({ txHash }) => txHash).values()]
    const how = each.some(hasIndexGaps) ? "repeated" : "from 0 in each transaction"
    return {
      level: "failure",
      detail: `log indexes: ${how} (block ${header.number}): logs that share an index have no identity, which cannot be handled`,
      fix: "use an endpoint that numbers the logs of a block",
    }
  }
  if (!hasIndexGaps(logs)) {
    const isOne = new Set(logs.map(({ txHash }) => txHash)).size === 1
    return ok(isOne ? "from 0, as far as a block with one transaction shows" : "per block, from 0")
  }
  const holes = `per block, with holes (block ${header.number})`
  if (hasReceipts || !isUnfiltered(filter)) return ok(`${holes}, believed where the receipts have the same`)
  return {
    level: "failure",
    detail: `log indexes: ${holes}: without eth_getBlockReceipts nothing shows that no log is missing`,
    fix: "use another endpoint",
  }
}

/** What counts as final. @param tag the header under the tag, the node's refusal, or none */
export const finality = (
  chain: Pick<ChainConfig, "name" | "finality" | "finalityDepth">,
  latest: Header,
  tag: Header | { readonly refusal: string; readonly isNothing: boolean } | undefined,
): Trait => {
  const byDepth = `finality: by depth, ${chain.finalityDepth} blocks`
  const set = `${variable(chain, "FINALITY")}=depth`
  if (chain.finality === "depth") return { level: "ok", detail: `${byDepth}, as ${set} says` }
  if (tag === undefined) return { level: "ok", detail: `${byDepth}: no block has the finalized tag` }
  if ("refusal" in tag) {
    return tag.isNothing
      ? { level: "ok", detail: `finality: by the finalized tag, nothing is final yet: ${tag.refusal}` }
      : { level: "ok", detail: `${byDepth}: ${tag.refusal}` }
  }
  const detail = `finality: by the finalized tag, block ${tag.number}`
  return latest.number > 0 && tag.number >= latest.number
    ? { level: "ok", detail: `${detail}, the latest`, fix: `on a development node, set ${set}` }
    : { level: "ok", detail }
}
