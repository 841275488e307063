/**
 * Text from a provider or a store is untrusted and may repeat a key. All of it passes through a redactor before it is
 * logged or served: known secrets are replaced, control characters removed, and the text is cut to 200 characters.
 */

import { Context } from "effect"

export type Redactor = (text: string) => string

const maxLength = 200

/** Shorter path segments of a URL (`v2`, `rpc`, `mainnet`) are not keys. */
const minKeyLength = 8

/** Decodes percent-encoding; returns malformed input unchanged. */
export const percentDecoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** A customer-specific host such as `key.network.provider.com`, as opposed to an IP address or a public name. */
const isOwnHost = ({ hostname }: URL) =>
  hostname.split(".").length > 2 && !hostname.startsWith("[") && !/^[\d.]+$/.test(hostname)

/** The parts of a URL that may be secret: the full URL, the host, user and password, path segments, query values. */
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

/**
 * @param secrets URLs, of which every part that may be a key is redacted, and literal secrets such as passwords
 * @param longest the number of characters to which a text is cut
 */
export const makeRedactor = (
  secrets: {
    readonly urls: ReadonlyArray<string>
    readonly words: ReadonlyArray<string>
  },
  longest = maxLength,
): Redactor => {
  const all = [...new Set([...secrets.urls.flatMap(secretsOf), ...secrets.words])]
    .filter((secret) => secret !== "")
    .sort((a, b) => b.length - a.length)
  return (text) => {
    // A text may be megabytes long. The search covers more than the final length, so that a secret at the cut is found.
    let redacted = text.slice(0, longest * 20)
    for (const secret of all) redacted = redacted.replaceAll(secret, "***")
    // oxlint-disable-next-line no-control-regex -- the pattern matches control characters
    redacted = redacted.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ")
    return redacted.length <= longest ? redacted : `${redacted.slice(0, longest)}…`
  }
}

/** The redactor of this process. The default knows no secrets but still strips control characters and truncates. */
export const Redaction = Context.Reference<Redactor>("event-ingestor/Redaction", {
  defaultValue: () => makeRedactor({ urls: [], words: [] }),
})
