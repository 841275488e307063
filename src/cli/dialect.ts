/** Describes how a node's headers and logs deviate, and what that means for the service. Pure. */
import { variablePrefix } from "../config/Chains.ts"
import type { ChainConfig } from "../config/AppConfig.ts"
import { eventText } from "../abi/EventText.ts"
import type { Block, Header } from "../Domain.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import { bitsSet, bloomOf, isZero } from "../logs/Bloom.ts"
import { isUnfiltered, makeMatches } from "../logs/Filter.ts"
import { hasIndexGaps } from "../logs/Integrity.ts"
import { failure, ok, warning } from "./Finding.ts"
import type { Trait } from "./Finding.ts"

/** The name of a chain's variable. */
export const variable = ({ name }: Pick<ChainConfig, "name">, end: string): string =>
  `${variablePrefix(name)}_${end}`

/** What a single endpoint can hide; README and GUARANTEES have the same sentence. */
export const oneEndpoint =
  "One endpoint alone can hide a log only by leaving it out each time it is asked, when the block is new and again when it is final (once for history, or with `AUDIT=off`): a log under a filter, and without a filter the last logs of a block whose `logsBloom` does not show it."

/** The unfiltered logs of a block, and its header. */
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
 * The blooms of headers, by source: on some chains, announced headers have other blooms than fetched ones.
 *
 * @param announced an announced header, and the same block's fetched header
 */
export const blooms = (
  chain: Pick<ChainConfig, "name" | "logsBloom">,
  fetched: ReadonlyArray<Header>,
  announced: readonly [Header, Header | undefined] | undefined,
  sample: Sample | undefined,
): Trait => {
  const usual = bloomKinds(fetched)
  const announcedKind = announced && bloomKind(announced[0])
  const isEmptyBlock =
    announcedKind === "zero" && announced?.[1] !== undefined && bloomKind(announced[1]) === announcedKind
  const second =
    announcedKind === undefined
      ? ""
      : `, announced ${announcedKind}${isEmptyBlock ? " (a block without logs)" : ""}`
  const what = `logsBloom: fetched ${usual}${second}`
  if (chain.logsBloom === "ignore") return ok(`${what}; ignored (LOGS_BLOOM=ignore)`)
  const isWrong =
    sample !== undefined &&
    bloomKind(sample.header) === "usable" &&
    bloomOf(sample.logs) !== sample.header.logsBloom
  if (isWrong)
    return warning(
      `${what}; wrong: it does not match the ${sample.logs.length} logs of block ${sample.header.number}`,
      `set ${variable(chain, "LOGS_BLOOM")}=ignore`,
    )
  const consequence =
    usual === "usable" || announcedKind === "usable"
      ? ""
      : "; the logs of every block are fetched until a usable bloom is seen"
  return ok(what + consequence)
}

/** How a node numbers the logs of a block: the index is part of a log's identity. */
export const indexes = (
  { filter }: Pick<ChainConfig, "filter">,
  sample: Sample | undefined,
  hasReceipts: boolean,
): Trait => {
  const numbered = (how: string) => ok(`log indexes: ${how}`)
  if (sample === undefined) return numbered("unknown: no block can be read without a filter")
  const { logs, header } = sample
  if (logs.length === 0) return numbered("unknown: the sampled blocks have no logs")
  if (new Set(logs.map(({ index }) => index)).size < logs.length) {
    const each = [...Map.groupBy(logs, ({ txHash }) => txHash).values()]
    const how = each.some(hasIndexGaps) ? "repeated" : "from 0 in each transaction"
    return failure(
      `log indexes: ${how} (block ${header.number}): logs that share an index have no identity, which is not supported`,
      "use an endpoint that numbers the logs across the whole block",
    )
  }
  if (!hasIndexGaps(logs)) {
    const isSingleTransaction = new Set(logs.map(({ txHash }) => txHash)).size === 1
    return numbered(
      isSingleTransaction
        ? "from 0 (the sampled block has logs of one transaction only)"
        : "per block, from 0",
    )
  }
  const gaps = `per block, with gaps (block ${header.number})`
  if (hasReceipts || !isUnfiltered(filter))
    return numbered(`${gaps}, accepted if the receipts have the same gaps`)
  return failure(
    `log indexes: ${gaps}: without eth_getBlockReceipts, a missing log cannot be detected`,
    "use another endpoint",
  )
}

/** How the logs of the sampled block are decoded. @param decode the decoder of the chain's events */
export const events = (
  { filter }: Pick<ChainConfig, "filter">,
  sample: Sample | undefined,
  decode: (block: Block) => Block,
): Trait => {
  if (sample === undefined) return ok("events: unknown: no block can be read without a filter")
  const { logs, header } = sample
  const matching = logs.filter(makeMatches(filter))
  const of = `${matching.length} of ${logs.length} logs of block ${header.number} match`
  const decoded = decode({ ...header, logs: matching }).logs
  const failed = decoded.find(({ args }) => args === undefined)
  if (failed !== undefined) {
    const { event, index } = failed
    return warning(
      `events: ${of}, and log ${index} (${event}) cannot be decoded`,
      "compare EVENTS with the ABI of the contract: such logs are published without args",
    )
  }
  const [first] = decoded
  return ok(`events: ${of}${first ? `, such as ${eventText(first.event!, first.args)}` : ""}`)
}

/** How finality is determined. @param tag the block with the finalized tag, the node's refusal, or neither */
export const finality = (
  chain: Pick<ChainConfig, "name" | "finality" | "finalityDepth">,
  latest: Header,
  tag: Header | { readonly refusal: string; readonly isNothing: boolean } | undefined,
): Trait => {
  const byDepth = `finality: by depth, ${chain.finalityDepth} blocks`
  const set = `${variable(chain, "FINALITY")}=depth`
  if (chain.finality === "depth") return ok(`${byDepth} (${set})`)
  if (tag === undefined) return ok(`${byDepth}: no block has the finalized tag`)
  const byTag = "finality: by the finalized tag"
  if ("refusal" in tag)
    return ok(tag.isNothing ? `${byTag}, nothing is final yet: ${tag.refusal}` : `${byDepth}: ${tag.refusal}`)
  const detail = `${byTag}, block ${tag.number}`
  return latest.number > 0 && tag.number >= latest.number
    ? ok(`${detail}, which is the latest`, `on a development node, set ${set}`)
    : ok(detail)
}
