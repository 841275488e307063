/**
 * The logs of one block that may have some, by the cheapest way that works:
 *
 * 1. `eth_getLogs` by the block's hash: a node that lacks the block must then say so instead of answering `[]`;
 * 2. `eth_getBlockReceipts`, where the first is refused, too large for one answer, or wrong again and again;
 * 3. the `logs` subscription, where both are refused, without a filter and for blocks that have just been announced;
 * 4. `eth_getTransactionReceipt` in small batches, for a block too large for one answer, so that none can stop a chain.
 *
 * Each answer is checked; what an endpoint refuses is remembered for it.
 */
import { Clock, Effect, Predicate, Schedule } from "effect"
import type { Block, Filter, Header, Hex } from "../Domain.ts"
import { isLeftOut } from "../endpoint/Calls.ts"
import { logsOf, sizeOf } from "../endpoint/Decode.ts"
import type { PlacedLog } from "../endpoint/Decode.ts"
import {
  EndpointError,
  isOver,
  orMalformed,
  refusalOf,
  Rejected,
  unverified,
} from "../endpoint/EndpointError.ts"
import type { Learned, Rung } from "../endpoint/Learned.ts"
import { makeMatches } from "./Filter.ts"
import type { GetLogs } from "./GetLogs.ts"
import type { Asker } from "./Headers.ts"
import type { LogsSubscription } from "./LogsSubscription.ts"
import type { Checks } from "./Verify.ts"

/**
 * Memory that the logs of one block may take, about (bytes): some 350 000 transfers. A log costs at least 375 gas and a
 * byte of data 8, so no chain we know of comes near.
 */
const largestBlock = 256 * 1024 * 1024

/** How often, and how far apart, an answer that fails its checks is asked for again: 100, 200, 400 ms. */
export const askAgain = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 3 }))

/**
 * For so long (milliseconds) after a block was first asked for here, a refusal that does not say what it is about means
 * that the node does not have the block yet.
 */
const arriving = 5_000

/** A block of this age (milliseconds) is there: what is said of it holds for others. */
const old = 60_000

/** Blocks whose first request is remembered. */
const mostArriving = 64

/** Words that are about the way of asking, not about the block. */
const isClear = ({ reason }: EndpointError): boolean =>
  reason._tag !== "Rejected" ||
  reason.refusal.action === "use receipts" ||
  [-32601, 401, 403, 429].includes(reason.code) ||
  /\bmethods?\b|HTTP status 4/i.test(reason.detail)

const isUnclear = (error: EndpointError): boolean => {
  const refusal = refusalOf(error)
  return (
    !isClear(error) &&
    (refusal === "other endpoint" || refusal === "unsupported" || refusal === "operator") &&
    !isLeftOut(error)
  )
}

/** The same refusal, as one of a block that is not there yet. */
const asNotYet = (error: EndpointError): EndpointError =>
  error.reason._tag === "Rejected"
    ? new EndpointError({
        endpoint: error.endpoint,
        reason: new Rejected({ ...error.reason, refusal: { action: "wait for head" } }),
      })
    : error

/** A node that does not have a block yet, or answers nonsense about it, may know better in a moment. */
export const again = <A>(effect: Effect.Effect<A, EndpointError>): Effect.Effect<A, EndpointError> =>
  Effect.retry(effect, {
    schedule: askAgain,
    while: (error) => error.reason._tag === "Unverified" || refusalOf(error) === "wait for head",
  })

/** A block with these as its logs. */
export const blockOf = (header: Header, logs: ReadonlyArray<PlacedLog>): Block => ({
  number: header.number,
  hash: header.hash,
  parentHash: header.parentHash,
  timestamp: header.timestamp,
  logs,
})

/** Reads a block's logs. `Unverified` where no answer can be believed; else why the last way was refused. */
export type BlockLogs = (header: Header) => Effect.Effect<Block, EndpointError>

/**
 * @param asker who is asked
 * @param learned what is known, and is then learned, of what it refuses
 * @param announced its `logs` subscription, where it can be used: under no filter
 */
export const make = (
  asker: Asker,
  filter: Filter,
  learned: Learned,
  getLogs: GetLogs,
  checks: Checks,
  announced: LogsSubscription | undefined,
): BlockLogs => {
  const matches = makeMatches(filter)
  const unbelievable = checks.block(filter)

  const doubt = (detail: string) => unverified(asker.name, detail)

  const believed = (header: Header) => (logs: ReadonlyArray<PlacedLog>) => {
    const wrong = unbelievable(logs, header)
    return wrong === undefined ? Effect.succeed(blockOf(header, logs)) : doubt(wrong)
  }

  const byHash = (header: Header) =>
    Effect.flatMap(getLogs({ blockHash: header.hash, number: header.number }), believed(header))

  /** The logs of receipts, in order. */
  const logsOfReceipts = (receipts: ReadonlyArray<unknown>) =>
    orMalformed(
      asker.name,
      logsOf(
        receipts.flatMap((receipt: unknown) =>
          Predicate.isObject(receipt) && "logs" in receipt ? (receipt.logs as unknown) : [null],
        ),
      ),
    )

  /** All logs of a block: checked as a whole, then filtered. */
  const whole = (header: Header, logs: ReadonlyArray<PlacedLog>) => {
    const wrong = checks.whole(logs, header)
    return wrong === undefined ? Effect.succeed(blockOf(header, logs.filter(matches))) : doubt(wrong)
  }

  const byBlockReceipts = (header: Header) =>
    Effect.flatMap(asker.request("eth_getBlockReceipts", [header.hash]), (receipts) => {
      if (!Array.isArray(receipts)) return doubt(`no receipts for block ${header.number}`)
      return Effect.flatMap(logsOfReceipts(receipts), (logs) => whole(header, logs))
    })

  const bySubscription = (header: Header) =>
    announced === undefined
      ? doubt(`the logs of block ${header.number} are not announced`)
      : Effect.flatMap(announced.logs(header), believed(header))

  /** Some receipts, in order. Where they are too many for one answer, fewer of them. */
  const someReceipts = (
    transactions: ReadonlyArray<Hex>,
  ): Effect.Effect<ReadonlyArray<unknown>, EndpointError> =>
    Effect.flatMap(
      asker.batch(transactions.map((hash) => ({ method: "eth_getTransactionReceipt", params: [hash] }))),
      Effect.forEach((answer) => (answer._tag === "Result" ? Effect.succeed(answer.result) : answer.error)),
    ).pipe(
      Effect.catch((error) => {
        const isTooMuch = refusalOf(error) === "split" || isLeftOut(error) || isOver(error)
        if (!isTooMuch || transactions.length === 1) return Effect.fail(error)
        const half = Math.ceil(transactions.length / 2)
        learned.receipts = Math.min(learned.receipts, half)
        if (isOver(error)) return Effect.fail(error)
        return Effect.zipWith(
          someReceipts(transactions.slice(0, half)),
          someReceipts(transactions.slice(half)),
          (first, second) => [...first, ...second],
        )
      }),
    )

  const byReceipt = Effect.fnUntraced(function* (header: Header) {
    const block = yield* asker.request("eth_getBlockByHash", [header.hash, false])
    if (!Predicate.isObject(block) || !("transactions" in block) || !Array.isArray(block.transactions)) {
      return yield* doubt(`the node does not have block ${header.number}`)
    }
    const transactions = block.transactions as ReadonlyArray<Hex>
    const all: Array<PlacedLog> = []
    let size = 0
    for (let i = 0; i < transactions.length;) {
      const some = transactions.slice(i, i + learned.receipts)
      const logs = yield* logsOfReceipts(yield* someReceipts(some))
      for (const log of logs) {
        all.push(log)
        size += sizeOf(log)
      }
      if (size > largestBlock)
        return yield* doubt(`block ${header.number} has more logs than a block can have`)
      i += some.length
    }
    return yield* whole(header, all)
  })

  const rungs: ReadonlyArray<readonly [Rung, BlockLogs]> = [
    ["eth_getLogs", (header) => again(byHash(header))],
    ["eth_getBlockReceipts", (header) => again(byBlockReceipts(header))],
    ["eth_subscribe", bySubscription],
    ["eth_getTransactionReceipt", (header) => again(byReceipt(header))],
  ]

  const isOpen = (rung: Rung, { hash }: Header): boolean =>
    learned.allows(rung, hash) &&
    (rung !== "eth_subscribe" ||
      (announced !== undefined && learned.doubts("eth_getLogs") && learned.doubts("eth_getBlockReceipts")))

  /** When blocks were first asked for. */
  const asked = new Map<Hex, number>()

  const ageOf = ({ hash, timestamp }: Header, now: number) => {
    const since = asked.get(hash) ?? now
    asked.set(hash, since)
    if (asked.size > mostArriving) asked.delete(asked.keys().next().value!)
    const isOld = now - timestamp * 1000 >= old
    return { isOld, isArriving: !isOld && now - since < arriving }
  }

  /** Whether another way of asking may do better, after what an error says is remembered. */
  const learn = (
    rung: Rung,
    { hash }: Header,
    error: EndpointError,
    { isOld, isArriving }: ReturnType<typeof ageOf>,
  ): boolean => {
    if (error.reason._tag === "Unverified") return true
    switch (refusalOf(error)) {
      case "split":
        // A single receipt that is too large is nobody's fault, and there is no other way.
        if (rung !== "eth_getTransactionReceipt") learned.tooLarge(rung, hash)
        return error.reason._tag !== "Oversized"
      case "use receipts":
      case "unsupported":
        if (!isArriving || isClear(error)) learned.refuse(rung, hash, isOld)
        return true
      case "other endpoint":
      case "fewer addresses":
        return !isOver(error)
      default:
        return false
    }
  }

  return Effect.fnUntraced(function* (header) {
    let first: EndpointError | undefined
    let unclear: EndpointError | undefined
    ageOf(header, yield* Clock.currentTimeMillis)
    const climb = (from: number): Effect.Effect<Block, EndpointError> => {
      const index = rungs.findIndex(([rung], i) => i >= from && isOpen(rung, header))
      if (index === -1) {
        if (unclear !== undefined) return Effect.fail(asNotYet(unclear))
        // Where every way is refused, the first refusal says most.
        return first ? Effect.fail(first) : doubt(`no way to read block ${header.number}`)
      }
      const [rung, ask] = rungs[index]!
      return Effect.catch(ask(header), (error) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const age = ageOf(header, now)
          if (age.isArriving && isUnclear(error)) unclear ??= error
          first ??= error
          if (learn(rung, header, error, age)) return climb(index + 1)
          return Effect.fail(error === unclear ? asNotYet(error) : error)
        }),
      )
    }
    return yield* climb(0)
  })
}
