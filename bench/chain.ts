/**
 * The chain that every subject follows, pre-rendered: the same blocks for all, distinguished only by number and hash.
 *
 * A block is one of a cycle of templates whose `eth_getLogs` answer is rendered once. The fields that differ from block to
 * block (number, hash, time) are contiguous in each log and of constant width, so an answer is one copy and one patch per
 * log. A provider that rendered its answers would be the bottleneck.
 */
import { createHash } from "node:crypto"
import { crc32 } from "node:zlib"
import type { Block, Hex, Log } from "../src/Domain.ts"
import { bloomOf } from "../src/logs/Bloom.ts"

export interface Shape {
  /** Logs of each block. */
  readonly logs: number
  /** `false`: headers have a zero bloom, like those of chains that compute none. */
  readonly bloom: boolean
  /** How many contracts emit, sharing the logs evenly; by default 500, few of which emit most of them. */
  readonly contracts?: number
}

/** The parent of the first block. Heights have seven hexadecimal digits below 251 million. */
export const base = 0x1000000
const genesisTime = 0x65000000

/** Blocks until logs repeat: more than the cache of bloom bits holds. */
const templates = 128
/** Fewer if blocks are large: theirs still have more words than that cache holds. */
const templatesOf = (logs: number) => (logs > 256 ? 24 : templates)

/** A small random generator, which makes the same chain in every process (mulberry32). */
const makeRandom = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const digest = (text: string) => createHash("sha256").update(text).digest("hex")
const word = (text: string): Hex => `0x${digest(text)}`
const addressOf = (text: string): Hex => `0x${digest(text).slice(24)}`
const hex = (value: number): Hex => `0x${value.toString(16)}`

export const contractAt = (i: number): Hex => addressOf(`contract ${i}`)

/** topic0, the number of topics and the words of data: what most logs of a public chain look like. */
const kinds = [
  { share: 0.7, topic: word("Transfer"), indexed: 2, words: 1 },
  { share: 0.85, topic: word("Approval"), indexed: 2, words: 1 },
  { share: 0.95, topic: word("Swap"), indexed: 2, words: 5 },
  { share: 1, topic: word("Sync"), indexed: 0, words: 2 },
]

/** Rendered logs, and where in them the block's own fields are. */
interface Rendered {
  readonly body: Buffer
  readonly patches: ReadonlyArray<number>
}

interface Template {
  readonly logs: ReadonlyArray<Log>
  readonly bloom: Hex
  readonly all: Rendered
}

const own = (number: number, hash: Hex) =>
  `"blockNumber":"${hex(number)}","blockHash":"${hash}","blockTimestamp":"${hex(genesisTime + number - base)}"`

const placeholder = own(base, `0x${"0".repeat(64)}`)

const render = (logs: ReadonlyArray<Log>): Rendered => {
  const texts = logs.map(
    (log) =>
      `{"address":"${log.contract}","topics":${JSON.stringify(log.topics)},"data":"${log.data}",${placeholder},` +
      `"transactionHash":"${log.txHash}","transactionIndex":"${hex(log.txIndex)}","logIndex":"${hex(log.index)}","removed":false}`,
  )
  const patches: Array<number> = []
  let at = 0
  for (const text of texts) {
    patches.push(at + text.indexOf(placeholder))
    at += text.length + 1
  }
  return { body: Buffer.from(texts.join(",")), patches }
}

/** Half of the accounts recur, half occur only once. */
const account = (random: () => number, unique: string): Hex =>
  `0x${"0".repeat(24)}${digest(random() < 0.5 ? `account ${Math.floor(random() * 2000)}` : unique).slice(24)}`

const makeTemplate = (shape: Shape, t: number): Template => {
  const random = makeRandom(t * 7919 + shape.logs)
  const contracts = shape.contracts ?? 500
  const logs: Array<Log> = []
  let txIndex = -1
  for (let index = 0; index < shape.logs; index++) {
    if (index === 0 || random() < 0.35) txIndex++
    const draw = random()
    const kind = kinds.find(({ share }) => draw < share)!
    const popularity = shape.contracts === undefined ? random() ** 3 : random()
    logs.push({
      contract: contractAt(Math.floor(popularity * contracts)),
      topics: [
        kind.topic,
        ...Array.from({ length: kind.indexed }, (_, i) => account(random, `${t}.${index}.${i}`)),
      ],
      data: `0x${Array.from({ length: kind.words }, (_, i) => digest(`data ${t} ${index} ${i}`)).join("")}`,
      txHash: word(`tx ${t} ${txIndex}`),
      txIndex,
      index,
    })
  }
  return { logs, bloom: shape.bloom ? bloomOf(logs) : `0x${"0".repeat(512)}`, all: render(logs) }
}

/** The filter of an `eth_getLogs` request. */
export interface Question {
  readonly from: number
  readonly to: number
  readonly addresses: ReadonlyArray<string> | undefined
}

export class Chain {
  readonly id: number
  readonly shape: Shape
  readonly #templates: ReadonlyArray<Template>
  readonly #selected = new Map<string, Rendered>()
  readonly #numbers = new Map<string, number>()

  /** Chains of one shape share their templates: pass those of another chain. */
  constructor(id: number, shape: Shape, like?: Chain) {
    this.id = id
    this.shape = shape
    this.#templates = like
      ? like.#templates
      : Array.from({ length: templatesOf(shape.logs) }, (_, t) => makeTemplate(shape, t))
  }

  hash(number: number): Hex {
    const hash = word(`${this.id} ${number}`)
    this.#numbers.set(hash, number)
    return hash
  }

  /** The height of a block whose hash was sent in an earlier answer. */
  numberOf(hash: string): number | undefined {
    return this.#numbers.get(hash)
  }

  #template(number: number): Template {
    return this.#templates[number % this.#templates.length]!
  }

  /** A header in geth's format. */
  header(number: number): string {
    const { bloom } = this.#template(number)
    const root = word(`root ${number}`)
    return (
      `{"number":"${hex(number)}","hash":"${this.hash(number)}","parentHash":"${this.hash(number - 1)}",` +
      `"logsBloom":"${bloom}","timestamp":"${hex(genesisTime + number - base)}","sha3Uncles":"${root}",` +
      `"transactionsRoot":"${root}","stateRoot":"${root}","receiptsRoot":"${root}","mixHash":"${root}",` +
      `"miner":"${contractAt(0)}","difficulty":"0x0","extraData":"0x","gasLimit":"0x1c9c380","gasUsed":"0x1c9c380",` +
      `"nonce":"0x0000000000000000","baseFeePerGas":"0x7"}`
    )
  }

  /** A block as the service pushes it. */
  block(number: number): Block {
    return {
      number,
      hash: this.hash(number),
      parentHash: this.hash(number - 1),
      timestamp: genesisTime + number - base,
      logs: this.#template(number).logs,
    }
  }

  #rendered(number: number, addresses: Question["addresses"]): Rendered {
    const template = this.#template(number)
    if (addresses === undefined) return template.all
    const key = `${number % this.#templates.length} ${addresses.length} ${addresses[0]}`
    const known = this.#selected.get(key)
    if (known !== undefined) return known
    const wanted = new Set(addresses)
    const rendered = render(template.logs.filter(({ contract }) => wanted.has(contract)))
    this.#selected.set(key, rendered)
    return rendered
  }

  /** The whole JSON-RPC response, as one frame. */
  answer(id: number, { from, to, addresses }: Question): Buffer {
    const head = `{"jsonrpc":"2.0","id":${id},"result":[`
    const parts: Array<readonly [number, Rendered]> = []
    let length = head.length + 2
    for (let number = from; number <= to; number++) {
      const rendered = this.#rendered(number, addresses)
      if (rendered.patches.length === 0) continue
      parts.push([number, rendered])
      length += rendered.body.length + 1
    }
    if (parts.length > 0) length--
    const frame = Buffer.allocUnsafe(length)
    let at = frame.write(head, "latin1")
    for (const [i, [number, { body, patches }]] of parts.entries()) {
      if (i > 0) frame[at++] = 44
      frame.set(body, at)
      const patch = Buffer.from(own(number, this.hash(number)), "latin1")
      for (const offset of patches) frame.set(patch, at + offset)
      at += body.length
    }
    frame.write("]}", at, "latin1")
    return frame
  }

  /** The number of logs in these blocks under these addresses, and the sum of their checksums. */
  expected(from: number, to: number, addresses?: ReadonlySet<string>): Contents {
    let count = 0
    let checksum = 0
    for (let number = from; number <= to; number++) {
      const hash = this.hash(number)
      const time = String(genesisTime + number - base)
      for (const log of this.#template(number).logs) {
        if (addresses?.has(log.contract) === false) continue
        count++
        checksum += checksumOf([
          String(this.id),
          String(number),
          hash,
          log.txHash,
          String(log.index),
          log.contract,
          JSON.stringify(log.topics),
          log.data,
          time,
          String(log.txIndex),
          "false",
        ])
      }
    }
    return { count, checksum }
  }

  /** One entry as every subject writes it, `[field, value, …]`; the ceiling repeats it. */
  sampleEntry(): ReadonlyArray<string> {
    const { contract, topics, data, txHash, txIndex, index } = this.#templates[0]!.logs[0]!
    const values = [
      String(this.id),
      String(base + 1),
      this.hash(base + 1),
      txHash,
      String(index),
      contract,
      JSON.stringify(topics),
      data,
      String(genesisTime + 1),
      String(txIndex),
      "false",
    ]
    return entryNames.flatMap((name, i) => [name, values[i]!])
  }
}

/** The fields that are compared, in the order of an entry. */
export const entryNames = [
  "chain_id",
  "block_number",
  "block_hash",
  "tx_hash",
  "log_index",
  "contract",
  "topics",
  "data",
  "timestamp",
  "tx_index",
  "removed",
] as const

export interface Contents {
  readonly count: number
  /** The sum of the entries' checksums, independent of their order. */
  readonly checksum: number
}

export const checksumOf = (values: ReadonlyArray<string>): number => crc32(values.join(" "))
