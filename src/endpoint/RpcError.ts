/**
 * Classifies a provider's error: what to change in the next request. One pure function over code, text, data and HTTP
 * status.
 *
 * Codes alone are ambiguous: -32602, -32000 and -32005 each have three different meanings, so the text decides. The rules
 * were collected from the documentation and issue trackers of some thirty providers and nodes.
 */

export interface RpcFailure {
  readonly code: number
  readonly message: string
  readonly data?: unknown
  /** The HTTP status, for responses over HTTP. */
  readonly status?: number
  /** The `Retry-After` header, in milliseconds. */
  readonly retryAfter?: number
}

export type ErrorInfo =
  /** Split the request: at most `blocks` wide, or from the same start up to block `through`, if the text names them. */
  | { readonly kind: "RangeTooLarge"; readonly blocks?: number; readonly through?: number }
  | { readonly kind: "TooManyAddresses" }
  /** The node does not have this block (yet). */
  | { readonly kind: "BlockNotFound" }
  /** Too many requests; `retryAfter` in milliseconds, if given. */
  | { readonly kind: "RateLimited"; readonly retryAfter?: number }
  /** `eth_getLogs` without an address is refused for any range. */
  | { readonly kind: "AddressRequired" }
  /** The method or parameter is not supported. */
  | { readonly kind: "MethodNotSupported" }
  | { readonly kind: "Unavailable" }
  /** Needs an operator: a key, a quota or a setting. */
  | { readonly kind: "Unauthorized" }

/** Longer texts are truncated before they are matched. */
const maxTextLength = 2000

/** Drops stack traces (ganache): a function name such as `Timeout._onTimeout` says nothing about the request. */
const textOf = (data: unknown): string => {
  if (typeof data === "string") return data
  try {
    return JSON.stringify(data, (key, value) => (key === "stack" ? undefined : value)) ?? ""
  } catch {
    return ""
  }
}

/** `10,000`, `2K`, `1k` → a number of blocks. */
const amount = (digits: string, thousand: string | undefined): number | undefined => {
  const value = Number(digits.replaceAll(/[,.]/g, "")) * (thousand ? 1000 : 1)
  return Number.isSafeInteger(value) && value > 0 ? value : undefined
}

/** The width that an error text allows. The order matters: the first matching rule applies. */
const widths: ReadonlyArray<RegExp> = [
  /range \d+ exceeds limit of (\d+)/i,
  /\(\d+ > (\d+)\)/,
  /limited to \d+ - (\d+) blocks?/i,
  /limited to an? ([\d,.]+)(k)? (?:blocks? )?range/i,
  /limited to ([\d,.]+)(k)? blocks?/i,
  /up to an? ([\d,.]+)(k)? block range/i,
  /blocks? distance: ?([\d,.]+)(k)?/i,
  /max(?:imum)? block range:? ?([\d,.]+)(k)?/i,
  /max(?:imum)? range:? ?([\d,.]+)(k)?/i,
  /max(?:imum)? (?:is|of) (?:set to )?([\d,.]+)(k)?(?: blocks?|$)/i,
  /maximum is set to ([\d,.]+)(k)?/i,
  /at most ([\d,.]+)(k)? blocks?/i,
  /requested blocks is ([\d,.]+)(k)?/i,
]

/** The last block that an error text allows, hexadecimal or (reth) decimal. */
const lastBlocks: ReadonlyArray<RegExp> = [
  /range(?: should work)?:? ?\[(0x[0-9a-f]{1,16}), ?(0x[0-9a-f]{1,16})\]/i,
  /retry with the range (\d{1,16})-(\d{1,16})/i,
]

const rangeHint = (text: string): { blocks?: number; through?: number } => {
  for (const rule of lastBlocks) {
    const found = rule.exec(text)
    if (found) {
      const from = Number(found[1])
      const through = Number(found[2])
      // Some providers send an inverted range, which is ignored.
      return Number.isSafeInteger(through) && through >= from ? { through } : {}
    }
  }
  for (const rule of widths) {
    const found = rule.exec(text)
    const blocks = found ? amount(found[1]!, found[2]) : undefined
    if (blocks !== undefined) return { blocks }
  }
  return {}
}

/** Matches a text that names the range to request next. */
const namesRange = { test: (text: string) => Object.keys(rangeHint(text)).length > 0 }

/** Cap for the delay that an error text asks for (milliseconds). */
const maxRetryAfter = 60_000

/** `data.try_again_in` as Chainstack sends it (`"107.5ms"`), Infura's `data.rate.backoff_seconds`, "retry in 10s". */
const retryDelays: ReadonlyArray<RegExp> = [
  /try_again_in[^\d]{1,8}(\d{1,7}(?:\.\d{1,6})?) ?(ms)?/i,
  /backoff_seconds[^\d]{1,8}(\d{1,7}(?:\.\d{1,6})?)/i,
  /(?:retry|try again) (?:in|after) (\d{1,7}(?:\.\d{1,6})?) ?(?:(ms)|s\b|sec)/i,
]

const retryAfter = (text: string, header: number | undefined): { retryAfter?: number } => {
  if (header !== undefined) return { retryAfter: header }
  for (const rule of retryDelays) {
    const found = rule.exec(text)
    if (!found) continue
    return { retryAfter: Math.min(Number(found[1]) * (found[2] === undefined ? 1000 : 1), maxRetryAfter) }
  }
  return {}
}

/** Pruned state; unlike a missing block, it does not appear later. */
const prunedState =
  /missing trie node|historical state|pruned|archive|state is not available|state [^.;]{0,80}not available/i

/** Errors about the size of a request, not its rate. */
const rangeTooLargeTexts: ReadonlyArray<RegExp> = [
  /more than [\d,]+ results|too many (logs|results|blocks)|max results|exceeds? (max|limit)|exceed maximum/i,
  /(range|response|result)[\w ]* (is |are )?too (large|wide|big)|response (size|too large)|range limit/i,
  /query duration|timed? ?out|no backend is currently healthy|batch (is )?too large|narrow your filter/i,
  /at most [\d,]+ logs|blocks per logs request|block range|logs matched by query/i,
]

/** A text about a method is not about a block. */
const aboutMethod = /\bmethods?\b/i

/** A rule applies if each of its conditions does. */
interface Rule {
  readonly kind: ErrorInfo["kind"]
  readonly codes?: ReadonlyArray<number>
  /** One of them matches the message or the data. */
  readonly texts?: ReadonlyArray<Pick<RegExp, "test">>
  /** Matches the message alone. */
  readonly message?: RegExp
  readonly status?: number
  /** None of these codes and texts applies. */
  readonly unless?: { readonly codes?: ReadonlyArray<number>; readonly texts: ReadonlyArray<RegExp> }
}

/** One provider error: one row. The first rule that applies decides; the last one always applies. */
const rules: ReadonlyArray<Rule> = [
  // Alchemy's monthly quota, keys in general, geth for a range that ends before it starts.
  {
    kind: "Unauthorized",
    texts: [
      /monthly capacity|invalid api key|unauthori[sz]ed|invalid block range params|must be authenticated/i,
    ],
  },
  // PublicNode without a key.
  { kind: "AddressRequired", texts: [/specify an? address/i] },
  // Archive requests at PublicNode, history expiry of geth (EIP-4444), the free tier of dRPC.
  {
    kind: "Unavailable",
    texts: [/personal token|pruned history|free ?tier, please upgrade|not supported on free ?(plan|tier)/i],
  },
  // PublicNode, Infura, geth.
  {
    kind: "TooManyAddresses",
    texts: [/request blocked|contains \d+ filters|max addresses or topics|too many addresses/i],
  },
  // A missing block, in the words of geth, Erigon, Nethermind, Besu, Kaia, Avalanche, Sei, zksync-era and others.
  {
    kind: "BlockNotFound",
    texts: [
      /beyond (the )?current head|(unknown|missing|pending) (block|header)|(block|header) (is )?(unknown|missing)/i,
      /BlockOutOfRange|block (is )?out of range|block_?not_?found|unfinali[sz]ed|after last accepted|key not found in database/i,
      /\b(blocks?|block ?hash|headers?|heights?|receipts?|resource)\b(?! range)[^.;]{0,120}\b((can)?not( be|( was)? yet)? (found|available|exist|produced|mined|indexed|ready|imported|processed)|unavailable)\b/i,
      /\b(blocks?|headers?|heights?)\b(?! range)[^.;]{0,120}\b(does ?n[o’']t exist|do not exist|is not (known|yet)|hasn.t been)\b/i,
      /(cannot|can ?not|could not|couldn.t|can.t|unable to|failed to|no) (find |get |load |fetch |retrieve |query )?(the |such |a )?(block|header|height)\b(?! range)/i,
      /(greater|higher|larger|newer) than (the )?(latest|current|head|best|last)|(is|in) (in )?the future|future block/i,
      /ahead of (the )?(latest|current|chain|head|best)|not (yet )?(synced|caught up) to (block|height)|unknown ancestor/i,
    ],
    unless: { codes: [-32601], texts: [aboutMethod, prunedState] },
  },
  // EIP-1474 and individual providers. These codes take precedence over texts about ranges.
  { kind: "RateLimited", codes: [429, -32029, -32097, -33000, -33100, -33200, -33300] },
  // EIP-1474; Infura uses the same code for ranges.
  { kind: "RateLimited", codes: [-32005], message: /^limit exceeded\b/i },
  // Too many requests, in the words of some forty providers.
  {
    kind: "RateLimited",
    texts: [
      /compute units|rate[- ]?limit|request limit|too many (concurrent )?(requests|connections|calls|subscriptions)/i,
      /RPS limit|try_again_in|backoff_seconds|request rate|requests? (count|quota|rate|per second)[\w ]* exceeded/i,
      /(call|calls|requests|credits|capacity|quota|usage|throughput|bandwidth)[\w ]* (limit )?(is |was |has been )?(exceeded|exhausted|reached)/i,
      /exceed(ed|s|ing)? (the |your |its |maximum |allowed )*(quota|capacity|rate|throughput|usage|requests?\b|RPS|QPS|call (rate|limit)|concurren)/i,
      /throttl|slow down|backing off|(over|out of) (quota|capacity)|server (is )?(too )?busy|overloaded/i,
    ],
    unless: { texts: rangeTooLargeTexts },
  },
  // Rates that are worded like sizes: Alchemy, Chainstack, Infura.
  {
    kind: "RateLimited",
    texts: [/compute units per second|rate limit|too many requests|RPS limit|try_again_in|backoff_seconds/i],
  },
  { kind: "RangeTooLarge", texts: [namesRange, ...rangeTooLargeTexts] },
  // JSON-RPC 2.0 and EIP-1474: method not found, method not supported.
  { kind: "MethodNotSupported", codes: [-32601, -32004] },
  // The last two: parameters that serde (reth, zksync-era) cannot decode.
  {
    kind: "MethodNotSupported",
    texts: [
      /method not found|not supported|unsupported|unknown variant|did not match any variant/i,
      /\bmethods?\b[^.;]{0,120}(does not exist|doesn.t exist|not (available|found|enabled|allowed|whitelisted))/i,
    ],
  },
  // EIP-1474: resource not found.
  { kind: "BlockNotFound", codes: [-32001], unless: { texts: [aboutMethod] } },
  // RFC 6585 §4, RFC 9110 §15.5.2 and §15.5.14, where the text is inconclusive.
  { kind: "RateLimited", status: 429 },
  { kind: "Unauthorized", status: 401 },
  { kind: "RangeTooLarge", status: 413 },
  { kind: "Unavailable" },
]

/** The HTTP status; 503 with a `Retry-After` header (RFC 9110 §15.6.4) is as good as 429. */
const statusOf = ({ status, retryAfter }: RpcFailure) =>
  status === 503 && retryAfter !== undefined ? 429 : status

const applies = (rule: Rule, failure: RpcFailure, text: string): boolean =>
  (rule.codes?.includes(failure.code) ?? true) &&
  (rule.status === undefined || rule.status === statusOf(failure)) &&
  (rule.message?.test(failure.message) ?? true) &&
  (rule.texts?.some((one) => one.test(text)) ?? true) &&
  !(rule.unless?.codes?.includes(failure.code) ?? false) &&
  !(rule.unless?.texts.some((one) => one.test(text)) ?? false)

/** Classifies an error. Never throws, for any text. */
export const normalizeRpcError = (failure: RpcFailure): ErrorInfo => {
  const text = `${failure.message} ${textOf(failure.data)}`.slice(0, maxTextLength)
  const { kind, status } = rules.find((rule) => applies(rule, failure, text))!
  if (kind === "RangeTooLarge") return { kind, ...rangeHint(text) }
  // A rule by HTTP status reads nothing from the text.
  if (kind === "RateLimited")
    return { kind, ...retryAfter(status === undefined ? text : "", failure.retryAfter) }
  return { kind }
}
