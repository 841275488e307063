/**
 * The logs of blocks at the tip from the connection's `logs` subscription, for endpoints that refuse `eth_getLogs` without
 * an address and `eth_getBlockReceipts`. The subscription starts with the first request.
 *
 * Logs are grouped by block hash. No message marks the last log of a block, and a log need not add a bit to the bloom: a
 * group without index gaps that matches the header's bloom may still be incomplete. It is accepted only if no log is added
 * to it during one more round trip on the same connection.
 */
import { Duration, Effect, Latch, Scope, Semaphore } from "effect"
import type { Header, Hex } from "../Domain.ts"
import { logsOf, sizeOf } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import type { Connection } from "../endpoint/Connection.ts"
import { Malformed, integrityError } from "../endpoint/EndpointError.ts"
import type { EndpointError } from "../endpoint/EndpointError.ts"
import * as Eth from "../endpoint/Eth.ts"
import { addTo, emptyBloom, isZero, toHex } from "./Bloom.ts"

export interface LogsSubscription {
  /** All logs of a block, without a filter, or an error. Waits only while more logs of the block may still arrive. */
  readonly logs: (header: Header) => Effect.Effect<ReadonlyArray<PlacedLog>, EndpointError>
}

/** The logs received of one block. */
interface Group {
  readonly logs: Map<number, PlacedLog>
  readonly bloom: Buffer
  highest: number
  bytes: number
}

/** Memory limits; the oldest blocks are dropped first. */
const mostBlocks = 64
const mostLogs = 20_000
const mostBytes = 32 * 1024 * 1024

/** How long after their head logs may arrive. */
const timeout = Duration.seconds(2)

const isComplete = ({ logs, bloom, highest }: Group, header: Header): boolean =>
  highest === logs.size - 1 && toHex(bloom) === header.logsBloom

/** The received logs by block. */
class Groups {
  readonly #groups = new Map<Hex, Group>()
  #logs = 0
  #bytes = 0
  /** The height of the last received log. */
  lastBlock = -1

  get(hash: Hex): Group | undefined {
    return this.#groups.get(hash)
  }

  add(log: PlacedLog): void {
    const { blockHash } = log
    const group = this.get(blockHash) ?? { logs: new Map(), bloom: emptyBloom(), highest: -1, bytes: 0 }
    this.#groups.set(blockHash, group)
    // Nodes may send a log twice.
    if (group.logs.has(log.index)) return
    group.logs.set(log.index, log)
    group.highest = Math.max(group.highest, log.index)
    addTo(group.bloom, log)
    this.lastBlock = log.blockNumber
    this.#logs++
    group.bytes += sizeOf(log)
    this.#bytes += sizeOf(log)
    while (this.#groups.size > mostBlocks || this.#logs > mostLogs || this.#bytes > mostBytes)
      this.drop(this.#groups.keys().next().value!)
  }

  drop(hash: Hex): void {
    const group = this.get(hash)
    this.#logs -= group?.logs.size ?? 0
    this.#bytes -= group?.bytes ?? 0
    this.#groups.delete(hash)
  }
}

/** A subscription that ends with the scope. */
export const make = Effect.fnUntraced(function* (connection: Connection) {
  const scope = yield* Effect.scope
  const arrived = yield* Latch.make(false)
  const oneAtATime = yield* Semaphore.make(1)
  const groups = new Groups()
  /** The height at which the subscription started: later blocks arrive completely. */
  let subscribedAt: number | undefined

  const onNotification = (raw: unknown) => {
    const decoded = logsOf([raw])
    if (decoded instanceof Malformed) return connection.endUnsafe(decoded)
    const log = decoded[0]!
    if (log.removed) return groups.drop(log.blockHash)
    groups.add(log)
    return arrived.openUnsafe()
  }

  /** The current height, after a round trip: what the server sent before its answer has arrived. Any failure is no proof. */
  const roundTrip = Eth.blockNumber(connection)

  const subscribe = oneAtATime.withPermit(
    Effect.gen(function* () {
      if (subscribedAt !== undefined) return
      const at = yield* roundTrip
      yield* Scope.provide(connection.subscribe(["logs", {}], onNotification), scope)
      subscribedAt = at
    }),
  )

  const integrityFailure = (detail: string) => integrityError(connection.name, detail)

  /** Logs arrive in the order of their blocks. */
  const mayStillArrive = ({ number }: Header) => number > subscribedAt! && number >= groups.lastBlock

  const awaitComplete = Effect.fnUntraced(function* (header: Header) {
    for (;;) {
      arrived.closeUnsafe()
      const group = groups.get(header.hash)
      if (group !== undefined && isComplete(group, header)) {
        const { size } = group.logs
        yield* roundTrip
        if (groups.get(header.hash) === group && group.logs.size === size) {
          return [...group.logs.values()].sort((a, b) => a.index - b.index)
        }
      } else {
        if (!mayStillArrive(header))
          return yield* integrityFailure(`the logs of block ${header.number} were not announced`)
        yield* arrived.await
      }
    }
  })

  return {
    logs: Effect.fnUntraced(function* (header) {
      const { logsBloom: bloom, number } = header
      if (bloom === undefined || isZero(bloom))
        return yield* integrityFailure(`block ${number} has no bloom to compare its logs with`)
      yield* subscribe
      return yield* Effect.timeoutOrElse(awaitComplete(header), {
        duration: timeout,
        orElse: () =>
          Effect.fail(integrityFailure(`the logs of block ${number} were not all announced in time`)),
      })
    }),
  } satisfies LogsSubscription as LogsSubscription
})
