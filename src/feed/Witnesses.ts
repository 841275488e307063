/** What everybody who can be asked says of a block of ours that the endpoint in use does not show. */
import { Clock, Effect, Schema } from "effect"
import { isRefusal, unverified } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import type { Place } from "./Canonical.ts"
import * as Headers from "./Headers.ts"
import type { Asker } from "./Headers.ts"

/** A block that was final is not in the chain. Nothing but an operator can say which one is right. */
export class Contradiction extends Schema.TaggedError<Contradiction>()("Contradiction", {
  number: Schema.Int,
  stored: Schema.String,
  seen: Schema.String,
}) {
  override get message() {
    return `block ${this.number} was final as ${this.stored} and is ${this.seen} now: another chain, or a reorg below finality`
  }
}

/** How long (milliseconds) a chain that is not longer than ours must be the only one to be seen before it is followed. */
const rivalPatience = 3000

export interface Witnesses {
  /** Fails if a block that is beyond undoing is another one here and nobody else knows ours. */
  readonly confirm: (place: Place) => Effect.Effect<void, EndpointError | Contradiction>
  /** Whether our head is still the chain's: `gone` if nobody has shown it for a while. */
  readonly judge: (
    head: Pick<Place, "number"> & { readonly hash: string },
  ) => Effect.Effect<"stands" | "in doubt" | "gone">
}

const headersOf = (everybody: ReadonlyArray<Asker>, number: number) =>
  Effect.forEach(
    everybody,
    (witness) => Effect.orElseSucceed(Headers.header(witness, number), () => undefined),
    { concurrency: "unbounded" },
  )

/** Whether anybody shows this block. */
export const isShown = (
  everybody: ReadonlyArray<Asker>,
  { number, hash }: { readonly number: number; readonly hash: string },
): Effect.Effect<boolean> =>
  Effect.map(headersOf(everybody, number), (seen) => seen.some((header) => header?.hash === hash))

/**
 * @param connection the endpoint in use
 * @param everybody who can be asked now, the endpoint in use included
 */
export const make = (connection: Asker, everybody: Effect.Effect<ReadonlyArray<Asker>>): Witnesses => {
  let doubted: { readonly head: string; readonly since: number } | undefined

  const ask = (number: number) => Effect.flatMap(everybody, (all) => headersOf(all, number))

  return {
    confirm: Effect.fnUntraced(function* ({ number, hash }) {
      // A node may have thrown old blocks away, and says so in its own words.
      const seen = yield* Headers.header(connection, number).pipe(
        Effect.catchIf(isRefusal, () => Effect.succeed(undefined)),
      )
      if (seen === undefined || seen.hash === hash) return
      if (yield* Effect.flatMap(everybody, (all) => isShown(all, { number, hash }))) {
        return yield* unverified(connection.name, `block ${number} is another one elsewhere`)
      }
      return yield* new Contradiction({ number, stored: hash, seen: seen.hash })
    }),
    judge: Effect.fnUntraced(function* (head) {
      const seen = yield* ask(head.number)
      const now = yield* Clock.currentTimeMillis
      if (seen.length === 0 || seen.some((header) => header === undefined || header.hash === head.hash)) {
        doubted = undefined
        return "stands"
      }
      if (doubted?.head !== head.hash) doubted = { head: head.hash, since: now }
      if (now - doubted.since < rivalPatience) return "in doubt"
      doubted = undefined
      return "gone"
    }),
  }
}
