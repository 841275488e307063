/** Decoded events as people read them. */
import { makeRedactor } from "../Redactor.ts"

/** A contract can emit any text: control characters are removed, and a long event is cut. */
const clean = makeRedactor({ urls: [], words: [] }, 2000)

/** `{ from: "0x…", ids: ["1"] }` as `from: 0x…, ids: [1]`. */
const valueText = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(valueText).join(", ")}]`
  return typeof value === "object" && value !== null ? `(${membersText(value)})` : String(value)
}

const membersText = (members: object): string =>
  Object.entries(members)
    .map(([name, value]) => `${name}: ${valueText(value)}`)
    .join(", ")

/**
 * `Transfer(from: 0x…, to: 0x…, value: 5)`; the signature alone, where the arguments are absent or no JSON object.
 *
 * @param event the canonical signature
 * @param args the arguments as JSON
 */
export const eventText = (event: string, args: string | undefined): string => {
  try {
    const members: unknown = JSON.parse(args ?? "")
    if (typeof members === "object" && members !== null)
      return clean(`${event.slice(0, event.indexOf("("))}(${membersText(members)})`)
  } catch {
    // Other programs may write to a stream, and the page has only the beginning of long arguments.
  }
  return clean(event)
}
