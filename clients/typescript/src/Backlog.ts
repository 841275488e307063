/**
 * Knows, for a reader that is behind, the lowest block number of each later page of the stream, and so which blocks survive.
 *
 * A reader far behind would otherwise have to apply, and keep for undoing, blocks that the stream itself retracts later, however
 * final the head says that their height is by now.
 */
import { identityOf } from "./Entry.ts"
import type { Entry, Head } from "./Entry.ts"
import { extentOf } from "./Source.ts"
import type { Extent, Source } from "./Source.ts"

/** A page of the stream: the entries up to `to`. */
interface Segment {
  readonly to: string
  readonly minimum: number
  readonly count: number
}

export interface Horizon extends Head {
  /** The last entry that is known. */
  readonly id: string
  readonly identity: string
}

export class Backlog {
  readonly horizon: Horizon
  readonly #segments: ReadonlyArray<Segment>

  constructor(horizon: Horizon, segments: ReadonlyArray<Segment>) {
    this.horizon = horizon
    this.#segments = segments
  }

  /** The segments that are not entirely at or below an id. */
  from(id: string, compare: Source["compare"]): Backlog {
    const at = this.#segments.findIndex(({ to }) => compare(to, id) > 0)
    return at === 0 ? this : new Backlog(this.horizon, at === -1 ? [] : this.#segments.slice(at))
  }

  get isConsumed(): boolean {
    return this.#segments.length === 0
  }

  /** The number of entries, of which the first segment's may be read already. */
  get count(): number {
    return this.#segments.reduce((sum, { count }) => sum + count, 0)
  }

  /**
   * The first segments, with so many entries after the first one, of which only the end may not be read yet: the id up to which to
   * read, and what is known of the rest.
   */
  next(count: number): { readonly to: string; readonly laterMinimum: number; readonly isAtHorizon: boolean } {
    let [i, sum] = [0, 0]
    while (i < this.#segments.length - 1 && sum < count) sum += this.#segments[++i]!.count
    const later = this.#segments.slice(i + 1)
    return {
      to: this.#segments[i]!.to,
      laterMinimum: later.reduce((minimum, segment) => Math.min(minimum, segment.minimum), Infinity),
      isAtHorizon: later.length === 0,
    }
  }

  /** What a page tells that goes up to the end of a snapshot. */
  static ofPage(page: ReadonlyArray<Entry>, head: Head): Backlog | undefined {
    const last = page.at(-1)
    if (last === undefined) return undefined
    return new Backlog({ ...head, ...endOf(last) }, [segmentOf(extentOf(page), last)])
  }

  /**
   * Learns the entries up to the end of a snapshot.
   *
   * @param after the position of the reader, if nothing is known yet
   * @returns also the lowest block number of what is new; `undefined` if the store was set back meanwhile
   */
  static async extend(
    source: Source,
    backlog: Backlog | undefined,
    after: string,
    { head, last }: { readonly head: Head; readonly last: string },
    pageSize: number,
  ): Promise<{ readonly backlog: Backlog; readonly minimum: number } | undefined> {
    const segments: Array<Segment> = []
    let end = { id: backlog?.horizon.id ?? after, identity: backlog?.horizon.identity ?? "" }
    while (source.compare(end.id, last) < 0) {
      const extent: Extent = await source.measure(end.id, last, pageSize)
      if (extent.last === undefined) return undefined
      end = endOf(extent.last)
      segments.push(segmentOf(extent, extent.last))
    }
    const minimum = segments.reduce((minimum, segment) => Math.min(minimum, segment.minimum), Infinity)
    const all = backlog === undefined ? segments : [...backlog.#segments, ...segments]
    return { backlog: new Backlog({ ...head, ...end }, all), minimum }
  }
}

const endOf = (last: Entry) => ({ id: last.id, identity: identityOf(last) })

const segmentOf = ({ minimum, count }: Extent, { id }: Entry): Segment => ({ to: id, minimum, count })
