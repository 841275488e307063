/**
 * Loaded into the service before anything else, by `--import`.
 *
 * SIGWINCH: collects garbage and says what the process still holds. SIGURG: moves the wall clock by what is in CLOCK_FILE;
 * timers and `performance.now` go on as they are. SIGXCPU, SIGVTALRM: ends the process before, or after,
 * the next commit to SQLite. SIGUSR2: switches on and off that mistakes happen in
 * its code, on the connections to one port. Every third time sending throws, and what is received throws when it is
 * looked at.
 */
import { existsSync, readFileSync } from "node:fs"
import { WebSocket } from "ws"

const port = process.env["SABOTAGE_PORT"]
let armed = false
let sent = 0
process.on("SIGUSR2", () => void (armed = !armed))

const isMeant = ({ url }: WebSocket) => armed && new URL(url).port === port

const mistake = (): never => {
  throw new TypeError("a mistake, made on purpose")
}

const { send, emit } = WebSocket.prototype
WebSocket.prototype.send = function (this: WebSocket, ...args: ReadonlyArray<unknown>) {
  return isMeant(this) && ++sent % 3 === 0 ? mistake() : Reflect.apply(send, this, args)
}

let receiving = false
WebSocket.prototype.emit = function (this: WebSocket, ...args: ReadonlyArray<unknown>) {
  receiving = args[0] === "message" && isMeant(this)
  try {
    return Reflect.apply(emit, this, args)
  } finally {
    receiving = false
  }
}

const { parse } = JSON
JSON.parse = (text, reviver) =>
  receiving ? new Proxy({}, { get: mistake, has: mistake }) : parse(text, reviver)

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

let asked = 0
process.on("SIGWINCH", () => {
  // The kind that gives pages back to the system.
  globalThis.gc!({ type: "major", execution: "sync", flavor: "last-resort" })
  process.stderr.write(`memory ${++asked}: ${process.memoryUsage.rss()} bytes\n`)
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
// Who is started while the clock is off finds it so.
if (existsSync(process.env["CLOCK_FILE"] ?? "")) shiftClock()
