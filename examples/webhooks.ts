/**
 * Calls a URL for the logs of each block, and again with `removed: true` when a reorg replaces it.
 * Run: WEBHOOK_URL=https://… WEBHOOK_SECRETS=… node examples/webhooks.ts send 1
 * A receiver: WEBHOOK_SECRETS=… node examples/webhooks.ts receive 8080
 *
 * A call is made at least once, and in order for each contract. It is signed as https://www.standardwebhooks.com describes, by each of
 * WEBHOOK_SECRETS (comma-separated). To replace a secret: add the new one here, then replace it at the receiver, then remove the old one.
 * A receiver does not remember the ids of calls, but upserts and deletes logs by `key`: a block may be removed and added again.
 *
 * A call that fails WEBHOOK_ATTEMPTS times goes to the table event_ingestor_dead_letters of DATABASE_PATH, and the next one is made.
 */
import { createHmac, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"
import type { IncomingHttpHeaders } from "node:http"
import { DatabaseSync } from "node:sqlite"
import { atLeastOnce, follow, sqlite } from "../clients/typescript/src/index.ts" // yours: "@event-ingestor/consumer"
import type { Block, Log } from "../clients/typescript/src/index.ts"

const [mode, argument] = process.argv.slice(2)
const secrets = (process.env["WEBHOOK_SECRETS"] ?? "").split(",").filter((secret) => secret.length > 0)
if (secrets.length === 0) throw new Error("WEBHOOK_SECRETS is missing")

const signature = (secret: string, id: string, timestamp: string, body: string) =>
  `v1,${createHmac("sha256", secret).update(`${id}.${timestamp}.${body}`).digest("base64")}`

const send = async (chain: number) => {
  const url = new URL(process.env["WEBHOOK_URL"] ?? "")
  const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname)
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLocal))
    throw new Error("WEBHOOK_URL: https only, or http to localhost")
  const attempts = Number(process.env["WEBHOOK_ATTEMPTS"] ?? 20)

  const call = async (
    { number, hash, timestamp: time }: Block,
    contract: string,
    logs: Array<Log>,
    removed: boolean,
  ) => {
    const id = `${chain}:${hash}:${contract}:${removed ? "removed" : "added"}`
    const body = JSON.stringify({ chain, number, hash, time, contract, removed, logs })
    const timestamp = String(Math.floor(Date.now() / 1000))
    const response = await fetch(url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": timestamp,
        "webhook-signature": secrets.map((secret) => signature(secret, id, timestamp, body)).join(" "),
      },
      body,
      // A redirection could lead the signed body elsewhere.
      redirect: "error",
      signal: AbortSignal.timeout(10_000),
    })
    await response.body?.cancel()
    if (!response.ok) throw new Error(`${url.host} answered ${response.status}`)
  }

  const deliver = async (block: Block, removed: boolean) => {
    for (const [contract, logs] of Map.groupBy(block.logs, ({ contract }) => contract))
      await call(block, contract, logs, removed)
  }

  const stop = new AbortController()
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort())
  await follow({
    redis: process.env["REDIS_URL"] ?? "redis://127.0.0.1:6379",
    chain,
    name: "webhooks",
    from: "earliest",
    finality: "latest",
    // After kill -9, the next process waits so long before it takes over.
    lease: "2s",
    // Not in the Redis of the stream: a failover would set back both.
    checkpoint: atLeastOnce(
      sqlite(new DatabaseSync(process.env["DATABASE_PATH"] ?? "webhooks.db", { timeout: 5000 })),
    ),
    concurrency: { by: ({ contract }) => contract, limit: 16 },
    apply: ({ block }) => deliver(block, false),
    undo: ({ block }) => deliver(block, true),
    onError: (error, { number }, attempt) => {
      process.stderr.write(`block ${number}, attempt ${attempt}: ${String(error)}\n`)
      return attempt < attempts ? "retry" : "skip"
    },
    signal: stop.signal,
  })
}

/** Whether a call comes from a sender that has one of the secrets, and is not older than five minutes. */
const isAuthentic = (headers: IncomingHttpHeaders, body: string) => {
  const [id = "", timestamp = "", given = ""] = ["id", "timestamp", "signature"].map((name) =>
    String(headers[`webhook-${name}`]),
  )
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300)) return false
  const expected = secrets.map((secret) => Buffer.from(signature(secret, id, timestamp, body)))
  const isExpected = (one: Buffer) =>
    expected.some((other) => one.length === other.length && timingSafeEqual(one, other))
  return given.split(" ").some((one) => isExpected(Buffer.from(one)))
}

const receive = (port: number) => {
  const logs = new Map<string, Log>() // your database
  const server = createServer((request, response) => {
    const answer = (status: number, body = "") => void response.writeHead(status).end(body)
    if (request.method === "GET") return answer(200, JSON.stringify([...logs.keys()]))
    const chunks: Array<Buffer> = []
    let size = 0
    request.on("data", (chunk: Buffer) => {
      size += chunk.length
      if (size > 32 * 1024 * 1024) request.destroy()
      else chunks.push(chunk)
    })
    request.on("end", () => {
      const body = Buffer.concat(chunks).toString()
      if (!isAuthentic(request.headers, body)) return answer(401)
      const call = JSON.parse(body) as { readonly removed: boolean; readonly logs: ReadonlyArray<Log> }
      for (const log of call.logs) {
        if (call.removed) logs.delete(log.key)
        else logs.set(log.key, log)
      }
      answer(204)
    })
  })
  server.listen(port, "127.0.0.1", () => process.stdout.write(`listening on ${port}\n`))
}

if (mode === "send") await send(Number(argument ?? 1))
else if (mode === "receive") receive(Number(argument ?? 8080))
else throw new Error("send or receive?")
