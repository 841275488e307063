/** Where variables come from: the process, which takes precedence, and `.env`. An empty variable counts as unset. */
import { readFileSync, statSync } from "node:fs"
import { parseEnv } from "node:util"

export type Variables = Readonly<Record<string, string | undefined>>

/** The text of a file as editors and shells of any system write it. Throws where it is not known how to read it. */
const textOf = (path: string): string => {
  const bytes = readFileSync(path)
  const [first, second] = bytes
  const encoding =
    first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8"
  let text: string
  try {
    // A byte order mark is not part of what it decodes.
    text = new TextDecoder(encoding, { fatal: true }).decode(bytes)
  } catch {
    throw new Error(`bytes that are not ${encoding.toUpperCase()}: save ${path} as UTF-8`)
  }
  // Every second byte of UTF-16 without a byte order mark.
  if (text.includes("\0")) throw new Error(`zero bytes, as UTF-16 has them: save ${path} as UTF-8`)
  return text
}

/** `docker run --env-file` passes on the quotes that a shell and `.env` take away. */
const withoutQuotes = (value: string): string => /^(["'])(.*)\1$/s.exec(value.trim())?.[2] ?? value

/**
 * The variables of `.env` in `directory`, overridden by those of the process, which lose the quotes around a value.
 * Throws if there is a `.env` that cannot be read.
 */
export const withDotEnv = (process: Variables, directory: string): Variables => {
  const merged: Record<string, string | undefined> = {}
  try {
    Object.assign(merged, parseEnv(textOf(`${directory}/.env`)))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error
  }
  for (const [name, value] of Object.entries(process)) {
    const given = withoutQuotes(value ?? "")
    if (given) merged[name] = given
  }
  return merged
}

/** The problem with a file that cannot be read: the system's code, or in words. */
export const unreadable = (error: unknown): string => {
  const { code, message } = error as NodeJS.ErrnoException
  return `expected a readable file, got ${code ?? message}`
}

/**
 * Whether Kubernetes (or Docker) set this variable, for a service that happens to be called so: `REDIS_PORT` of a service
 * `redis` is `tcp://10.0.0.7:6379`.
 */
export const isServiceLink = (name: string, value: string): boolean =>
  /_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/.test(name) ||
  (name.endsWith("_PORT") && /^(tcp|udp|sctp):\/\//.test(value))

/** Reads a text file. Throws if it cannot be read, or is larger than `most` bytes. */
export const readText = (path: string, most: number): string => {
  if (statSync(path).size > most) throw new Error(`more than ${most} bytes`)
  return textOf(path)
}

/** A file with a secret in it is no larger (bytes): it is a line, or a list of URLs. */
const largestSecret = 64 * 1024

/** The text of a file with a secret in it, or why it has none. */
export const readSecret = (path: string): { readonly content: string } | { readonly problem: string } => {
  try {
    if (statSync(path).size > largestSecret)
      return { problem: `expected a file of at most ${largestSecret} bytes, got ${path}` }
    return { content: textOf(path).trim() }
  } catch (error) {
    return { problem: `${unreadable(error)} for ${path}` }
  }
}
