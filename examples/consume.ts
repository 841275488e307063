/**
 * Keeps a set of logs equal to the chain, from the stream of one chain. Run: node examples/consume.ts events:1
 *
 * One consumer per stream: retractions are only correct in order. Entries that were delivered and not acknowledged are
 * read first, so a crash repeats entries, and repeating an upsert or a delete changes nothing.
 *
 * It does not notice a Redis that was set back, nor blocks: docs/CONSUMING.md has what does, and examples/balances.ts.
 *
 * With an OpenTelemetry SDK (node --import …), the processing of an entry joins the trace of its block.
 */
import { propagation, ROOT_CONTEXT, SpanKind, trace } from "@opentelemetry/api"
import { Redis } from "ioredis"

const [stream = "events:1", group = "my-app", consumer = "worker-1"] = process.argv.slice(2)
const redis = new Redis(process.env["REDIS_URL"] ?? "redis://127.0.0.1:6379")
const tracer = trace.getTracer("consume")
const logs = new Map<string, Record<string, string>>() // your database

await redis.xgroup("CREATE", stream, group, "0", "MKSTREAM").catch((error: Error) => {
  if (!error.message.startsWith("BUSYGROUP")) throw error
})

for (let from = "0"; ;) {
  const reply = await redis.xreadgroup(
    "GROUP",
    group,
    consumer,
    "COUNT",
    500,
    "BLOCK",
    5000,
    "STREAMS",
    stream,
    from,
  )
  const [[, entries]] = (reply ?? [[stream, []]]) as [
    [string, Array<[id: string, fields: Array<string> | null]>],
  ]
  if (from !== ">" && entries.length === 0) from = ">" // nothing is pending any more: continue with new entries
  for (const [id, fields] of entries) {
    if (fields === null) {
      // Trimmed after it was delivered, before it was read again: its content has to be read from a node.
      process.stderr.write(`${id} was trimmed before it was acknowledged\n`)
      await redis.xack(stream, group, id)
      continue
    }
    const log: Record<string, string> = {}
    for (let i = 0; i < fields.length; i += 2) log[fields[i]!] = fields[i + 1]!
    const identity = `${log["chain_id"]}:${log["block_hash"]}:${log["log_index"]}`
    const span = tracer.startSpan(
      "process",
      { kind: SpanKind.CONSUMER },
      propagation.extract(ROOT_CONTEXT, log),
    )
    if (log["removed"] === "true") logs.delete(identity)
    else logs.set(identity, log)
    span.end()
    await redis.xack(stream, group, id)
  }
  if (entries.length > 0) process.stdout.write(`${logs.size} logs\n`)
}
