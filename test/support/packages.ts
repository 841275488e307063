/** The npm packages as their users have them: packed, and installed in an empty folder. */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { directory } from "./directory.ts"
import { main } from "./Service.ts"

const root = resolve(import.meta.dirname, "../..")
const client = join(root, "clients/typescript")

const quiet = ["--no-audit", "--no-fund", "--silent"]

interface Lock {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devDependencies?: unknown }>>
}

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

/** Packs directories into tarballs. @returns the folder of the tarballs */
const pack = (place: string, directories: ReadonlyArray<string>) => {
  const tarballs = join(place, "tarballs")
  mkdirSync(tarballs)
  run(root, "npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", tarballs, ...directories)
  return tarballs
}

/** The files in a directory and below, and the path of each in it. */
const filesIn = (path: string) =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))

export interface Installed {
  readonly folder: string
  /** The names of all installed packages. */
  readonly packages: ReadonlyArray<string>
  /** The files of the package. */
  readonly files: ReadonlyArray<string>
}

const installed = (folder: string, name: string): Installed => {
  const modules = join(folder, "node_modules")
  const { packages } = JSON.parse(readFileSync(join(modules, ".package-lock.json"), "utf8")) as Lock
  return {
    folder,
    packages: Object.keys(packages).map((path) => path.split("node_modules/").at(-1)!),
    files: filesIn(join(modules, name)),
  }
}

/** The client's directory with a build, as a release has it. */
const builtClient = (place: string) => {
  const built = join(place, "client")
  mkdirSync(built)
  for (const name of ["package.json", "README.md", "LICENSE", "src"]) {
    cpSync(join(client, name), join(built, name), { recursive: true })
  }
  run(root, "node", "scripts/buildClient.mjs", join(built, "dist"))
  return built
}

/**
 * Installs the client with `ioredis` and `abitype`, which is a peer that npm installs by itself; they are packed from this repository's
 * own. The first program of its README is `balances.mjs` in the folder.
 */
export const installClient = Effect.map(directory, (place) => {
  const folder = join(place, "app")
  mkdirSync(folder)
  const others = closureOf(["ioredis", "abitype"]).map((name) => join(root, "node_modules", name))
  const tarballs = pack(place, [builtClient(place), ...others])
  const packed = readdirSync(tarballs).map((name) => join(tarballs, name))
  run(folder, "npm", "install", "--offline", ...quiet, ...packed)
  const [, program] = /^```js\n([\s\S]*?)^```$/m.exec(readFileSync(join(client, "README.md"), "utf8"))!
  writeFileSync(join(folder, "balances.mjs"), program!)
  return installed(folder, "@event-ingestor/consumer")
})

/** The client's package alone, unpacked where Node looks for it from the folder. */
export const unpackClient = Effect.map(directory, (place) => {
  const tarballs = pack(place, [builtClient(place)])
  const own = join(place, "app/node_modules/@event-ingestor/consumer")
  mkdirSync(own, { recursive: true })
  run(own, "tar", "-xzf", join(tarballs, readdirSync(tarballs)[0]!), "--strip-components=1")
  return { folder: join(place, "app"), own, files: filesIn(own) }
})

const notInClone = new Set([".git", "node_modules", "dist", "data"])

/**
 * Installs the service, packed from a copy of the whole repository with the build that the tests run. Its dependencies have the versions
 * of this repository: npm has them in its cache.
 */
export const installService = Effect.map(directory, (place) => {
  const copy = join(place, "copy")
  cpSync(root, copy, { recursive: true, filter: (path) => !notInClone.has(basename(path)) })
  cpSync(dirname(main), join(copy, "dist"), { recursive: true })
  const tarballs = pack(place, [copy])
  const folder = join(place, "app")
  mkdirSync(folder)
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as Lock
  const { "": own, ...packages } = lock.packages
  const manifest = {
    name: "app",
    dependencies: { "event-ingestor": `file:${tarballs}/${readdirSync(tarballs)[0]}` },
  }
  const { devDependencies: _, ...service } = own!
  const needed = {
    "": manifest,
    "node_modules/event-ingestor": { ...service, resolved: manifest.dependencies["event-ingestor"] },
    ...Object.fromEntries(Object.entries(packages).filter(([, { dev }]) => dev !== true)),
  }
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest))
  writeFileSync(
    join(folder, "package-lock.json"),
    JSON.stringify({ lockfileVersion: 3, requires: true, packages: needed }),
  )
  run(folder, "npm", "ci", "--prefer-offline", ...quiet)
  return installed(folder, "event-ingestor")
})
