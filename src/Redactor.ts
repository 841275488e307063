/**
 * Text from a provider or a store is untrusted and may repeat a key. `makeRedactor` builds the one function that such
 * text passes before anybody sees it: known secrets replaced, control characters gone, cut to 200 characters.
 */

import { Context } from "effect"

export type Redactor = (text: string) => string

const maxLength = 200

/** Shorter parts of a URL's path (`v2`, `rpc`, `mainnet`) are no keys. */
const minKeyLength = 8

/** What is written with percent signs in a URL; as it stands where it is no such thing. */
export const percentDecoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** A customer's own host, `key.network.provider.com`, and not an address or a name that anybody may know. */
const isOwnHost = ({ hostname }: URL) =>
  hostname.split(".").length > 2 && !hostname.startsWith("[") && !/^[\d.]+$/.test(hostname)

/** The parts of a URL that can be a secret: the whole, the host, the user's name and password, path segments, query values. */
const secretsOf = (address: string): ReadonlyArray<string> => {
  const url = new URL(address)
  const parts = [...url.pathname.split("/"), ...url.searchParams.values()].filter(
    (part) => part.length >= minKeyLength,
  )
  const fullUrl = url.pathname === "/" && url.search === "" && url.username === "" ? [] : [address]
  const host = isOwnHost(url) ? [url.hostname] : []
  const encoded = [...fullUrl, ...host, url.username, url.password, ...parts].filter((part) => part !== "")
  return [...encoded, ...encoded.map(percentDecoded)]
}

/** @param secrets URLs, of which every part that can be a key counts, and plain words such as passwords. */
export const makeRedactor = (secrets: {
  readonly urls: ReadonlyArray<string>
  readonly words: ReadonlyArray<string>
}): Redactor => {
  const all = [...new Set([...secrets.urls.flatMap(secretsOf), ...secrets.words])]
    .filter((secret) => secret !== "")
    .sort((a, b) => b.length - a.length)
  return (text) => {
    // A text can be megabytes; what is cut away anyway is not searched, but a secret across the cut is.
    let redacted = text.slice(0, maxLength * 20)
    for (const secret of all) redacted = redacted.replaceAll(secret, "***")
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    redacted = redacted.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ")
    return redacted.length <= maxLength ? redacted : `${redacted.slice(0, maxLength)}…`
  }
}

/** The redactor of this process. The default knows no secrets but still strips and cuts. */
export const Redaction = Context.Reference<Redactor>("event-ingestor/Redaction", {
  defaultValue: () => makeRedactor({ urls: [], words: [] }),
})
