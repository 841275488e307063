/** Reads `/status` of a running service, by its HTTP address. */
import { Effect, Redacted, Schema, SchemaTransformation } from "effect"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import type { HttpClientError } from "effect/http"
import { isIPv6 } from "node:net"
import { ConfigProblems, processVariables } from "../config/AppConfig.ts"
import { readHttp, usualPort } from "../config/HttpConfig.ts"
import { Reader } from "../config/Variable.ts"
import { detailOf } from "../endpoint/HttpConnection.ts"
import { makeRedactor, percentDecoded } from "../Redactor.ts"

const answerWithin = "3 seconds"

/** Whatever answers at the address: its text must not move the cursor. */
const clean = makeRedactor({ urls: [], words: [] })

const Text = Schema.String.pipe(
  Schema.decodeTo(Schema.String, SchemaTransformation.transform({ decode: clean, encode: clean })),
)

const Height = Schema.NullOr(Schema.Finite)

/** The fields of `/status` that are shown. */
const Status = Schema.Struct({
  version: Text,
  uptime_s: Schema.Finite,
  fleet: Schema.NullOr(
    Schema.Struct({ name: Text, error: Schema.NullOr(Text), members: Schema.Array(Text) }),
  ),
  store: Schema.Struct({ description: Text }),
  chains: Schema.Array(
    Schema.Struct({
      name: Text,
      replica: Schema.NullOr(Text),
      reasons: Schema.Array(Text),
      phase: Text,
      store_breaker: Schema.Struct({ state: Text }),
      head: Height,
      stored: Height,
      lag_s: Schema.Finite,
      logs: Schema.Struct({ per_second: Schema.Finite }),
      endpoints: Schema.Array(Schema.Struct({ name: Text, in_use: Schema.Boolean })),
    }),
  ),
})

export type Status = typeof Status.Type

/** The service did not answer, or not with its status. */
export class NoStatus extends Schema.TaggedError<NoStatus>()("NoStatus", {
  address: Schema.String,
  detail: Schema.String,
}) {
  override get message() {
    return `no status from ${this.address}: ${this.detail}`
  }
}

export interface Target {
  /** Its origin: what may be shown. */
  readonly address: string
  readonly url: string
  readonly token: Redacted.Redacted<string> | undefined
}

/** An address with or without `http://` and a path before `/status`; `undefined` if it is none. */
export const parseAddress = (text: string): URL | undefined => {
  const url = URL.parse(/^https?:\/\//.test(text) ? text : `http://${text}`)
  return url !== null && url.hostname !== "" && url.search === "" && url.hash === "" ? url : undefined
}

/** Where a service with the configuration of this process listens. */
const ownAddress = (host: string, port: number): string => {
  const reachable = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host
  return `http://${isIPv6(reachable) ? `[${reachable}]` : reachable}:${port || usualPort}`
}

/**
 * The service at an address, by default the one that this configuration starts; with the token of the address
 * (`http://:TOKEN@host`), or else of the configuration.
 */
export const targetOf = Effect.fnUntraced(function* (given: URL | undefined) {
  const reader = new Reader(yield* processVariables)
  const { host, port, token } = yield* readHttp(reader)
  if (reader.problems.length > 0) return yield* new ConfigProblems({ problems: reader.problems })
  const url = given ?? new URL(ownAddress(host, port))
  const own = percentDecoded(url.password)
  const path = url.pathname.replace(/\/(status)?$/, "")
  return {
    address: url.origin,
    url: `${url.origin}${path}/status`,
    token: own === "" ? token : Redacted.make(own),
  } satisfies Target
})

const reasonOf = (
  error: HttpClientError.HttpClientError | Schema.SchemaError | { readonly _tag: "Late" },
) => {
  switch (error._tag) {
    case "Late":
      return `no answer within ${answerWithin}`
    case "SchemaError":
      return "what answers there is no event ingestor of this version"
    default:
  }
  const status = error.response?.status
  if (status === undefined) return clean(detailOf(error))
  if (status === 401) return "a token is required: set METRICS_TOKEN"
  return status === 200 ? "what answers there is no event ingestor" : `HTTP status ${status}`
}

/** Requests the status. */
export const requestStatus = ({ address, url, token }: Target) => {
  const request = HttpClientRequest.get(url)
  const authorized = token === undefined ? request : HttpClientRequest.bearerToken(request, token)
  return HttpClient.execute(authorized).pipe(
    Effect.flatMap(HttpClientResponse.filterStatusOk),
    Effect.flatMap(HttpClientResponse.schemaBodyJson(Status)),
    Effect.timeoutOrElse({
      duration: answerWithin,
      orElse: () => Effect.fail({ _tag: "Late" } as const),
    }),
    Effect.mapError((error) => new NoStatus({ address, detail: reasonOf(error) })),
  )
}
