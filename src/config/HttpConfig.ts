/** Where the HTTP routes listen, and the token that they want. */
import { Effect } from "effect"
import type { Redacted } from "effect"
import * as Codec from "./Codec.ts"
import { variable } from "./Variable.ts"
import type { Reader, Section } from "./Variable.ts"

export interface HttpConfig {
  readonly host: string
  readonly port: number
  readonly token: Redacted.Redacted<string> | undefined
}

export const usualPort = 9090

const variables = {
  host: variable("HTTP_HOST", Codec.text, {
    default: "127.0.0.1",
    meaning:
      "where `/`, `/status`, `/metrics`, `/health` and `/ready` listen (in the image: `0.0.0.0`); a loopback address answers only loopback names (Host: `localhost`, `127.0.0.1`, `[::1]`)",
  }),
  port: variable("HTTP_PORT", Codec.listenPort, {
    shownDefault: `\`${usualPort}\``,
    example: String(usualPort),
    meaning: "the port; `0` for any free one",
  }),
  alias: variable("METRICS_PORT", Codec.listenPort, {
    example: String(usualPort),
    meaning: "another name for `HTTP_PORT`",
  }),
  token: variable("METRICS_TOKEN", Codec.secret, {
    isSecret: true,
    meaning:
      "the token for all routes but `/health` and `/ready`: as Bearer, or as the password of Basic authentication",
  }),
}

export const section: Section = { title: "HTTP", variables: Object.values(variables) }

export const readHttp = Effect.fnUntraced(function* (reader: Reader) {
  const { alias, host, port, token } = yield* reader.all(variables)
  if (port !== undefined && alias !== undefined && port !== alias)
    reader.problem("METRICS_PORT", "is another name for HTTP_PORT and says something else")
  return { host, port: port ?? alias ?? usualPort, token } satisfies HttpConfig
})
