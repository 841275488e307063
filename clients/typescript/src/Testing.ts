/** Runs a handler on recorded entries, without any stream: for tests of handlers. */
import type { Abi } from "abitype"
import type { Entry } from "./Entry.ts"
import { identityOf, numberOf } from "./Entry.ts"
import { makeDecoder } from "./Events.ts"
import type { Block } from "./Events.ts"
import { makeMatches } from "./Filter.ts"
import { plan } from "./Plan.ts"
import type { State } from "./Position.ts"

export interface ReplayOptions<ABI extends Abi> {
  readonly events?: ABI
  readonly addresses?: ReadonlyArray<string>
  /** Blocks up to here are delivered as final. By default none. */
  readonly finalNumber?: number
  readonly apply: (context: { readonly block: Block<ABI> }) => void | Promise<void>
  readonly undo?: (context: { readonly block: Block<ABI> }) => void | Promise<void>
}

/**
 * Delivers entries as a reader would that sees each of them arrive: a block when the next one begins, or at the end.
 *
 * @param entries as `event-ingestor tail --json` prints them
 */
export const replay = async <const ABI extends Abi = Abi>(
  entries: ReadonlyArray<Readonly<Record<string, string>>>,
  { events, addresses = [], finalNumber = -1, apply, undo }: ReplayOptions<ABI>,
): Promise<void> => {
  const decoder = await makeDecoder(events)
  const matches = makeMatches({ addresses, events: decoder.topics })
  const all = entries.map((fields, i): Entry => ({ id: String(i + 1), fields }))
  let state: State = {
    position: {
      id: "0",
      identity: "",
      epoch: "",
      offset: 0,
      final: -1,
      block: -1,
      filter: "",
      owner: "",
      beat: 0,
    },
    stack: [],
  }
  for (let from = 0; from < all.length;) {
    let to = from + 1
    const first = all[from]!
    const ofRun = (entry: Entry) =>
      entry.fields["block_hash"] === first.fields["block_hash"] &&
      entry.fields["removed"] === first.fields["removed"]
    while (to < all.length && ofRun(all[to]!)) to++
    const number = numberOf(first)
    const later = all.slice(to).reduce((minimum, entry) => Math.min(minimum, numberOf(entry)), Infinity)
    const horizon = {
      number,
      hash: identityOf(first),
      part: 0,
      finalNumber: later > number ? Math.min(finalNumber, number) : -1,
    }
    const view = { entries: all.slice(from, to), horizon, isAtHorizon: true, laterMinimum: Infinity }
    const planned = plan(state, view, { finality: "latest", matches })
    for (const { kind, block } of planned.steps) {
      const context = { block: decoder.decode(block) }
      if (kind === "apply") await apply(context)
      else if (undo === undefined) throw new Error(`block ${block.number} is retracted: set undo`)
      else await undo(context)
    }
    state = planned.state
    from = to
  }
}
