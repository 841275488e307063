/** `top`: the chains of a running service, by its HTTP address: redrawn in place on a terminal, otherwise printed once. */
import { Effect, Option, Stream, Terminal } from "effect"
import { Argument, Command } from "effect/cli"
import { Transport } from "../endpoint/Socket.ts"
import { pluralize } from "../observability/LogEvents.ts"
import { booleanFlag, jsonFlag, withExamples } from "./Flags.ts"
import { canRedraw, span, style, writeLines, writeRecords } from "./Output.ts"
import { parseAddress, requestStatus, targetOf } from "./RunningService.ts"
import type { NoStatus, Status, Target } from "./RunningService.ts"
import { cut, table } from "./Table.ts"
import type { Cell, Column } from "./Table.ts"

const refreshEvery = "1 second"

type Chain = Status["chains"][number]

const rowOf = (chain: Chain) => ({
  chain: chain.name,
  followed_by: chain.replica,
  head: chain.head,
  stored: chain.stored,
  lag_s: chain.lag_s,
  logs_per_second: chain.logs.per_second,
  state: chain.phase,
  endpoint: chain.endpoints.find(({ in_use }) => in_use)?.name ?? null,
  store_breaker: chain.store_breaker.state,
  reasons: chain.reasons,
})

type Row = ReturnType<typeof rowOf>

/** The columns of a table, each with what it shows of a chain. */
const columnsOf = ({
  fleet,
  store,
}: Status): ReadonlyArray<Column & { readonly cell: (row: Row) => Cell }> => [
  { title: "chain", cell: ({ chain }) => chain },
  ...(fleet === null
    ? []
    : [{ title: "followed by", cell: ({ followed_by }: Row) => followed_by ?? (["-", 31] as const) }]),
  { title: "head", isNumber: true, width: 8, cell: ({ head }) => String(head ?? "-") },
  { title: "stored", isNumber: true, width: 8, cell: ({ stored }) => String(stored ?? "-") },
  { title: "lag", isNumber: true, width: 6, cell: ({ head, lag_s }) => (head === null ? "-" : span(lag_s)) },
  {
    title: "logs/s",
    isNumber: true,
    cell: ({ logs_per_second }) => logs_per_second.toFixed(logs_per_second < 10 ? 1 : 0),
  },
  {
    title: "state",
    width: 11,
    cell: ({ reasons, state }) => [state.replaceAll("-", " "), reasons.length === 0 ? 32 : 33],
  },
  { title: "endpoint", cell: ({ endpoint }) => endpoint ?? "-" },
  {
    // What the description of a store begins with: redis or sqlite.
    title: store.description.split(" ", 1)[0]!,
    cell: ({ store_breaker }) => (store_breaker === "closed" ? "ok" : [store_breaker, 31]),
  },
  { title: "not ready because", cell: ({ reasons }) => reasons.join("; ") },
]

/** The table as lines. @param width what no line exceeds */
export const tableOf = (status: Status, width?: number): ReadonlyArray<string> => {
  const rows = status.chains.map(rowOf)
  const all = columnsOf(status)
  const columns = rows.some(({ reasons }) => reasons.length > 0) ? all : all.slice(0, -1)
  return table(
    columns,
    rows.map((row) => columns.map(({ cell }) => cell(row))),
    width,
  )
}

/** One line about the service as a whole. */
const summaryOf = ({ fleet, store, uptime_s, version }: Status, address: string): string => {
  const replicas =
    fleet === null ? "" : `  fleet ${fleet.name}: ${fleet.error ?? pluralize(fleet.members.length, "member")}`
  return `event-ingestor ${version} at ${address}  up ${span(uptime_s)}  ${store.description}${replicas}`
}

/** What is on the screen: the last status, and why there is no newer one. */
interface View {
  status: Status | undefined
  failure: NoStatus | undefined
}

/** The lines of a screen, none of which exceeds its width. */
export const screenOf = (
  { failure, status }: View,
  address: string,
  { columns, rows }: { readonly columns: number; readonly rows: number },
): ReadonlyArray<string> => {
  const summary = status === undefined ? `waiting for ${address}` : summaryOf(status, address)
  const first = failure === undefined ? summary : `${failure.message}; trying again every second`
  const lines = status === undefined ? [] : tableOf(status, columns)
  const fitting = lines.length < rows ? lines : lines.slice(0, Math.max(rows - 2, 0))
  const more = lines.length - fitting.length
  return [
    style(failure === undefined ? 1 : 31, cut(first, columns)),
    ...fitting,
    ...(more > 0 ? [cut(`… ${more} more`, columns)] : []),
  ]
}

/** The alternate screen without a cursor, and back. */
const openScreen = "\u001b[?1049h\u001b[?25l"
const closeScreen = "\u001b[?25h\u001b[?1049l"

/** Ends when a key quits: q, Esc, Ctrl-C or Ctrl-D, where there is a keyboard. */
const quitKey = Effect.gen(function* () {
  if (!process.stdin.isTTY) return yield* Effect.never
  const terminal = yield* Terminal.Terminal
  // It ends with the other keys.
  const keys = Stream.fromQueue(yield* terminal.readInput)
  yield* Stream.runDrain(Stream.takeUntil(keys, ({ key }) => key.name === "q"))
})

/** Shows the table until a key or a signal quits. */
const show = Effect.fnUntraced(function* (target: Target) {
  const { stdout } = process
  const view: View = { status: undefined, failure: undefined }
  const draw = () => {
    const lines = screenOf(view, target.address, stdout)
    // Each line replaces the one that was there; what is left below is erased.
    stdout.write(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join("\n")}\u001b[J`)
  }
  const close = () => void stdout.write(closeScreen)
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      stdout.write(openScreen)
      // Finalizers do not run after a second signal.
      process.once("exit", close)
      stdout.on("resize", draw)
      draw()
    }),
    () =>
      Effect.sync(() => {
        stdout.off("resize", draw)
        process.off("exit", close)
        close()
      }),
  )
  const refresh = requestStatus(target).pipe(
    Effect.match({
      onSuccess: (status) => Object.assign(view, { status, failure: undefined }),
      onFailure: (failure) => Object.assign(view, { failure }),
    }),
    Effect.andThen(Effect.sync(draw)),
    Effect.andThen(Effect.sleep(refreshEvery)),
  )
  yield* Effect.raceFirst(Effect.forever(refresh), quitKey)
}, Effect.scoped)

export const top = Command.make(
  "top",
  {
    address: Argument.String("address").pipe(
      Argument.withDescription(
        "The HTTP address of the service (default: where this configuration serves it)",
      ),
      // What was given may contain a token.
      Argument.filterMap(
        (text) => Option.fromUndefinedOr(parseAddress(text)),
        () => "expected an HTTP address, such as http://127.0.0.1:9090",
      ),
      Argument.optional,
    ),
    once: booleanFlag("once", "Print the table once, also on a terminal"),
    json: jsonFlag("Print once, one JSON object per line and chain"),
  },
  Effect.fnUntraced(function* ({ address, once, json }) {
    const target = yield* targetOf(Option.getOrUndefined(address))
    if (!once && !json && canRedraw(process.stdout)) return yield* show(target)
    const status = yield* requestStatus(target)
    if (json) return yield* writeRecords(status.chains.map(rowOf), true, () => [])
    yield* writeLines([summaryOf(status, target.address), ...tableOf(status, process.stdout.columns)])
  }, Effect.provide(Transport.layerNetwork)),
).pipe(
  Command.withDescription("Show the chains of a running service, redrawn every second"),
  withExamples({
    "event-ingestor top": "The service on this machine, until q or Ctrl-C",
    "event-ingestor top http://10.0.0.7:9090": "Another one; METRICS_TOKEN is its token",
    "event-ingestor top --once": "Print the table once",
  }),
)
