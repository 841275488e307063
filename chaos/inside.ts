/**
 * Loaded into the service before anything else, by `--import`.
 *
 * SIGWINCH: collects garbage and prints the resident memory. SIGURG: shifts the wall clock by the amount in CLOCK_FILE;
 * timers and `performance.now` are not affected. SIGXCPU, SIGVTALRM: kills the process before, or after, the next commit to
 * SQLite. SIGUSR2: switches defects on and off on the connections to one port: every third send throws, and received
 * messages throw when they are read.
 */
import { existsSync, readFileSync } from "node:fs"
import { WebSocket } from "ws"

const port = process.env["SABOTAGE_PORT"]
let armed = false
let sent = 0
process.on("SIGUSR2", () => void (armed = !armed))

const isTarget = ({ url }: WebSocket) => armed && new URL(url).port === port

const throwDefect = (): never => {
  throw new TypeError("a defect, injected on purpose")
}

const { send, emit } = WebSocket.prototype
WebSocket.prototype.send = function (this: WebSocket, ...args: ReadonlyArray<unknown>) {
  return isTarget(this) && ++sent % 3 === 0 ? throwDefect() : Reflect.apply(send, this, args)
}

let receiving = false
WebSocket.prototype.emit = function (this: WebSocket, ...args: ReadonlyArray<unknown>) {
  receiving = args[0] === "message" && isTarget(this)
  try {
    return Reflect.apply(emit, this, args)
  } finally {
    receiving = false
  }
}

const { parse } = JSON
JSON.parse = (text, reviver) =>
  receiving ? new Proxy({}, { get: throwDefect, has: throwDefect }) : parse(text, reviver)

const endAtCommit = (before: boolean) => () => {
  const { prototype } = process.getBuiltinModule("node:sqlite").DatabaseSync
  const { exec } = prototype
  prototype.exec = function (sql) {
    const end = () => sql === "COMMIT" && process.kill(process.pid, "SIGKILL")
    if (before) end()
    Reflect.apply(exec, this, [sql])
    end()
  }
}
process.on("SIGXCPU", endAtCommit(true))
process.on("SIGVTALRM", endAtCommit(false))

let measurements = 0
process.on("SIGWINCH", () => {
  // Only this kind of collection returns pages to the system.
  globalThis.gc!({ type: "major", execution: "sync", flavor: "last-resort" })
  process.stderr.write(`memory ${++measurements}: ${process.memoryUsage.rss()} bytes\n`)
})

let shift = 0
const shiftClock = () => {
  const [serial, millis] = readFileSync(process.env["CLOCK_FILE"]!, "utf8").split(" ")
  shift = Number(millis)
  process.stderr.write(`clock ${serial}: ${shift} ms\n`)
}
const { now } = Date
Date.now = () => now() + shift
globalThis.Date = new Proxy(Date, {
  construct: (target, args, made) => Reflect.construct(target, args.length === 0 ? [Date.now()] : args, made),
  apply: () => new Date().toString(),
})
process.on("SIGURG", shiftClock)
// A process that starts while the clock is shifted has the shift from its start.
if (existsSync(process.env["CLOCK_FILE"] ?? "")) shiftClock()
