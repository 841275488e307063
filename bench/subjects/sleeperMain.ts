/**
 * Measures how much slower the machine runs a process that wakes up seldom. Sends the CPU time of a piece of work after a second
 * of sleep, relative to that of the same work while the process is busy: the median of several times.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { median } from "../statistics.ts"

const times = 7
/** Until the JIT compiler is done. */
const warmUp = 300

const work = () => JSON.stringify(Array.from({ length: 20_000 }, (_, i) => ({ i, text: String(i) }))).length

const millisOfWork = () => {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}

for (let i = 0; i < warmUp; i++) work()
const busy = Array.from({ length: times }, millisOfWork)
const rested: Array<number> = []
for (let i = 0; i < times; i++) {
  await sleep(1000)
  rested.push(millisOfWork())
}
process.send!(median(rested) / median(busy))
