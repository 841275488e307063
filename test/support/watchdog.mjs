/** `node watchdog.mjs PID RUN`: when standard input ends, kills whatever is left of what the process had started. */
import { readdirSync, readFileSync } from "node:fs"

const root = Number(process.argv[2])

/**
 * In the environment of what it starts, or in its command line: what is younger than the last look may have lost its parent
 * already.
 */
const mark = `TEST_RUN=${process.argv[3]}`

/** How often new processes are looked for (ms). One that is younger is found through its parent. */
const interval = 250

/** When they were started, of all processes that came from the root: a process id alone may be another's by now. */
const known = new Map()

/** Parent and start of a process, or `undefined` when it is gone. */
const about = (pid) => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    return { parent: Number(fields[1]), started: fields[19] }
  } catch {
    return undefined
  }
}

const isMarked = (pid) => {
  try {
    return ["environ", "cmdline"].some((file) => readFileSync(`/proc/${pid}/${file}`, "utf8").includes(mark))
  } catch {
    return false
  }
}

const look = (isOver = false) => {
  const all = new Map()
  for (const name of readdirSync("/proc")) {
    const pid = Number(name)
    const found = Number.isInteger(pid) ? about(pid) : undefined
    if (found !== undefined) all.set(pid, found)
  }
  for (const [pid, started] of known) if (all.get(pid)?.started !== started) known.delete(pid)
  for (let before = -1; before !== known.size;) {
    before = known.size
    for (const [pid, { parent, started }] of all) {
      const isOurs = parent === root || known.has(parent) || (isOver && isMarked(pid))
      if (isOurs && pid !== process.pid) known.set(pid, started)
    }
  }
}

const killAll = () => {
  // Again, until none has started another meanwhile.
  for (look(true); known.size > 0; look(true)) {
    for (const [pid, started] of known) {
      try {
        if (about(pid)?.started === started) process.kill(pid, "SIGKILL")
      } catch {
        // It ended by itself.
      }
      known.delete(pid)
    }
  }
  process.exit(0)
}

look()
setInterval(() => look(), interval)
process.stdin.on("end", killAll).on("error", killAll).resume()
