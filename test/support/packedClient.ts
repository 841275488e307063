/** The TypeScript client as its users have it: packed, and installed in an empty folder. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { execFileSync } from "node:child_process"
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { directory } from "./directory.ts"

const root = resolve(import.meta.dirname, "../..")
const client = join(root, "clients/typescript")

const json = (path: string) =>
  JSON.parse(readFileSync(path, "utf8")) as { readonly dependencies?: Readonly<Record<string, string>> }

/** The packages, and what they depend on. */
const closureOf = (names: ReadonlyArray<string>): ReadonlyArray<string> => {
  const found = new Set<string>()
  const add = (name: string) => {
    if (found.has(name)) return
    found.add(name)
    const { dependencies = {} } = json(join(root, "node_modules", name, "package.json"))
    for (const dependency of Object.keys(dependencies)) add(dependency)
  }
  for (const name of names) add(name)
  return [...found]
}

const run = (cwd: string, program: string, ...args: ReadonlyArray<string>) =>
  execFileSync(program, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] })

export interface Installed {
  readonly folder: string
  /** The names of all installed packages. */
  readonly packages: ReadonlyArray<string>
  /** The files of the client's package. */
  readonly files: ReadonlyArray<string>
}

/**
 * Packs the client and installs it with `ioredis` in an empty folder, where the first program of its README is `balances.mjs`.
 * No registry is asked: the other packages, which npm would fetch, are packed from this repository's own.
 */
export const install: Effect.Effect<Installed, never, Scope.Scope> = Effect.map(directory, (place) => {
  const [tarballs, folder] = ["tarballs", "app"].map((name) => {
    mkdirSync(join(place, name))
    return join(place, name)
  }) as [string, string]
  run(root, "node", "scripts/buildClient.mjs")
  // `abitype` is a peer that npm installs by itself.
  const others = closureOf(["ioredis", "abitype"]).map((name) => join(root, "node_modules", name))
  run(root, "npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", tarballs, client, ...others)
  const packed = readdirSync(tarballs).map((name) => join(tarballs, name))
  run(folder, "npm", "install", "--offline", "--no-audit", "--no-fund", "--silent", ...packed)
  const [, program] = /^```ts\n([\s\S]*?)^```$/m.exec(readFileSync(join(client, "README.md"), "utf8"))!
  writeFileSync(join(folder, "balances.mjs"), program!)
  const { dependencies = {} } = json(join(folder, "package.json"))
  const own = join(folder, "node_modules/@event-ingestor/consumer")
  return {
    folder,
    packages: Object.keys(dependencies),
    files: readdirSync(own, { recursive: true, encoding: "utf8" }),
  }
})
