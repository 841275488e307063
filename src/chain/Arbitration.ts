/** Settles what the logs of one block are, where endpoints disagree. */
import { Effect } from "effect"
import type { Block, Hex } from "../Domain.ts"
import { integrityError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import type { Endpoint } from "../endpoint/Endpoint.ts"
import type { LogSource } from "../logs/LogSource.ts"
import type { InTurn } from "./AuditReads.ts"
import type { Publisher } from "./ChainEvents.ts"
import type { Provenance } from "./Provenance.ts"

/** What the audit works with. */
export interface AuditOptions {
  readonly sourceInUse: Endpoint
  /** Only one endpoint is configured: the audit asks the same one a second time. */
  readonly singleEndpoint: boolean
  /** The endpoints for final blocks, in order: the first serves them, the second is compared. */
  readonly sources: () => ReadonlyArray<Endpoint>
  readonly logsOf: (source: Endpoint) => LogSource
  readonly logs: LogSource
  readonly events: Publisher
  /** Runs the audit's reads, those of all chains one after the other. */
  readonly inTurn: InTurn
  /** What was written and not audited yet; outlives the connections of a chain. */
  readonly provenance: Provenance
}

/** An answer of this endpoint differs from the accepted one. */
export const contradicted = ({ events }: AuditOptions, source: string, number: number): Effect.Effect<void> =>
  events.publish({
    _tag: "Contradicted",
    endpoint: source,
    detail: `its logs of block ${number} differ from the accepted ones`,
  })

export const byNumber = (blocks: ReadonlyArray<Block>) =>
  new Map(blocks.map((block) => [block.number, block]))

/** The height of the last block. */
export const endOf = (blocks: ReadonlyArray<Block>): number => blocks.at(-1)!.number

/** The block with the most logs: omission is the known fault. */
export const largest = (blocks: ReadonlyArray<Block>) =>
  blocks.reduce((a, b) => (b.logs.length > a.logs.length ? b : a))

/**
 * Reads one block from several endpoints with all integrity checks and accepts the largest answer; fails if none can
 * read it. An endpoint with another block at this height is on another fork and has no vote: the audit does not resolve
 * forks.
 *
 * @param hash of the block; if unknown, that of the endpoint in use
 */
export const arbitrate = Effect.fnUntraced(function* (
  { sourceInUse, logsOf }: AuditOptions,
  number: number,
  asked: ReadonlyArray<Endpoint>,
  hash: Hex | undefined,
) {
  const canonical = hash ?? (yield* Eth.blockByNumber(sourceInUse.connection, number))?.hash
  const answers = yield* Effect.forEach(asked, (source) =>
    Effect.result(
      Effect.flatMap(Eth.blockByNumber(source.connection, number), (header) =>
        header === undefined
          ? Effect.fail(integrityError(source.connection.name, `the node does not have block ${number}`))
          : logsOf(source).block(header),
      ),
    ),
  )
  const blocks: Array<Block> = []
  const onOtherFork = new Set<Endpoint>()
  for (const [i, answer] of answers.entries()) {
    if (answer._tag === "Failure") continue
    if (answer.success.hash === canonical) blocks.push(answer.success)
    else onOtherFork.add(asked[i]!)
  }
  if (blocks.length === 0)
    return yield* integrityError(asked[0]!.connection.name, `no endpoint can read block ${number} again`)
  return { block: largest(blocks), answers: blocks.length, onOtherFork }
})
