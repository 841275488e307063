/** Counts the commands that a Redis server runs: those that clients send, and those that scripts call. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { createHash } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import type { RedisServer } from "./RedisServer.ts"

const folder = new URL("../../src/store/redis/lua/", import.meta.url)
const source = (name: string) => readFileSync(new URL(`${name}.lua`, folder), "utf8")

/** A text without what `MONITOR` escapes: line breaks, backslashes and non-ASCII characters. */
const plain = (text: string) => text.replace(/\\x[0-9a-f]{2}|\\n|\n|\\|[^\x20-\x7e]/g, "")

/** Scripts are identified by their digest (EVALSHA), or by their text (EVAL). */
const names = new Map(
  readdirSync(folder).flatMap((file) => {
    const name = file.replace(".lua", "")
    const text = `${source("common")}\n${source("retention")}\n${source(name)}`
    return [
      [createHash("sha1").update(text).digest("hex"), name],
      [plain(text), name],
    ] as const
  }),
)

export interface Counts {
  /** How often clients sent each command; a script counts under its own name. */
  readonly wire: Record<string, number>
  /** How many commands scripts called. */
  readonly inside: number
}

/** Counts until the scope closes, without the commands of the server's own client. */
export const counting = Effect.fnUntraced(function* (
  server: RedisServer,
): Effect.fn.Return<{ readonly take: Effect.Effect<Counts> }, never, Scope.Scope> {
  const monitor = yield* Effect.acquireRelease(
    Effect.promise(() => server.client.monitor()),
    (monitor) => Effect.sync(() => monitor.disconnect()),
  )
  const ownAddress = (yield* Effect.promise(() => server.client.client("INFO"))).match(/ addr=(\S+)/)![1]!
  let wire: Record<string, number> = {}
  let inside = 0
  let marks = 0
  let marked = () => {}
  monitor.on("monitor", (_time: string, words: ReadonlyArray<string>, from: string) => {
    if (from === ownAddress) return words[0] === "echo" && words[1] === `mark ${marks}` ? marked() : undefined
    if (from === "lua") return void inside++
    const name = names.get(words[1] ?? "") ?? names.get(plain(words[1] ?? "")) ?? words[0]!.toLowerCase()
    wire[name] = (wire[name] ?? 0) + 1
  })
  return {
    /** The counts since the last call. */
    take: Effect.promise(async () => {
      const seen = new Promise<void>((resolve) => {
        marked = resolve
      })
      await server.client.echo(`mark ${++marks}`)
      await seen
      const counts = { wire, inside }
      wire = {}
      inside = 0
      return counts
    }),
  }
})
