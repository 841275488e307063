/** Fake nodes over HTTP, with and without sockets. */
import type { IncomingMessage, ServerResponse } from "node:http"
import { Effect, Layer } from "effect"
import { HttpClient, HttpClientError, HttpClientResponse } from "effect/http"
import type { FakeNode } from "./FakeNode.ts"

/** The page that nginx returns for a request that is too large. */
const tooLarge = "<html><head><title>413 Request Entity Too Large</title></head></html>"

/** An HTTP client that reaches only these hosts; each direction takes `latency` on the clock in use. */
export const layerHttp = (nodes: Readonly<Record<string, FakeNode>>, latency = "1 millis" as const) =>
  Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request, url) =>
      Effect.gen(function* () {
        yield* Effect.sleep(latency) // The fault: latency of the request, on the clock in use.
        const node = nodes[url.host]
        const body = request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
        if (node === undefined || !node.up) {
          const cause = new Error("refused")
          return yield* new HttpClientError.HttpClientError({
            reason: new HttpClientError.TransportError({ request, cause }),
          })
        }
        if (body.length > node.mostCharacters)
          return HttpClientResponse.fromWeb(request, new Response(tooLarge, { status: 413 }))
        const answer = node.post(body)
        if (answer === undefined) return yield* Effect.never
        yield* Effect.sleep(latency) // The fault: latency of the response, on the clock in use.
        const { status, headers, text = answer } = node.http
        return HttpClientResponse.fromWeb(request, new Response(text, { status, headers }))
      }),
    ),
  )

/** Serves a real HTTP request. */
export const answerHttp = (node: FakeNode, request: IncomingMessage, response: ServerResponse): void => {
  const chunks: Array<Buffer> = []
  request.on("data", (chunk: Buffer) => chunks.push(chunk))
  request.on("end", () => {
    if (!node.up) request.socket.destroy()
    const body = Buffer.concat(chunks).toString()
    if (body.length > node.mostCharacters) return void response.writeHead(413).end(tooLarge)
    const answer = node.up ? node.post(body) : undefined
    if (answer !== undefined)
      response.writeHead(node.http.status, node.http.headers).end(node.http.text ?? answer)
  })
}
