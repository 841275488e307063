/** The packages that are published, as their users get them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import * as Devnet from "../support/devnet.ts"
import { FakeChain } from "../support/FakeChain.ts"
import { FakeNode } from "../support/FakeNode.ts"
import { installService, unpackClient } from "../support/packages.ts"
import * as Service from "../support/Service.ts"

const read = (path: string) => readFileSync(path, "utf8")

const service = JSON.parse(read("package.json")) as {
  readonly version: string
  readonly private?: boolean
  readonly bin: Readonly<Record<string, string>>
}
const client = JSON.parse(read("clients/typescript/package.json")) as {
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>
  readonly peerDependencies: Readonly<Record<string, string>>
}

const always = ["LICENSE", "README.md", "package.json"]

describe("the package event-ingestor", () => {
  it.live(
    "has what runs and nothing else, and runs where it is installed",
    () =>
      Effect.gen(function* () {
        const { folder, packages, files } = yield* installService
        assert.isUndefined(service.private)
        assert.includeMembers(
          [...files],
          [...always, "CHANGELOG.md", "dist/commit", ...Object.values(service.bin)],
        )
        const others = files.filter((name) => !name.startsWith("dist/"))
        assert.sameMembers(others, [...always, "CHANGELOG.md"])
        for (const name of files) assert.notMatch(name, /\.ts$|\.map$|(^|\/)\./)
        assert.isEmpty(packages.filter((name) => /effect|vitest|rolldown/.test(name)))

        const npx = (...args: ReadonlyArray<string>) =>
          execFileSync("npx", ["--offline", "event-ingestor", ...args], { cwd: folder, encoding: "utf8" })
        const commit = read(join(folder, "node_modules/event-ingestor/dist/commit"))
        const known = commit === "" ? "" : ` (${commit})`
        assert.strictEqual(npx("--version"), `event-ingestor v${service.version}${known}\n`)

        const node = new FakeNode(new FakeChain())
        node.chain.extend(3, 2)
        const env = Devnet.environment(yield* node.serve, {})
        const program = { cwd: folder, entry: join(folder, "node_modules/.bin/event-ingestor"), env }
        const running = yield* Service.start({ ...program, args: ["run"] })
        yield* running.says(/status at http/)
        const reader = yield* Service.start({
          ...program,
          args: ["tail", "--from", "start", "--follow", "--json"],
        })
        yield* reader.says(/"block_number":"2"/)
        assert.isTrue(existsSync(join(folder, "data/events.db")))
        running.kill("SIGTERM")
        assert.strictEqual(yield* running.exit, 0)
      }).pipe(Effect.scoped),
    60_000,
  )
})

describe("the package @event-ingestor/consumer", () => {
  it.effect(
    "has the files that its exports name, and types for each kind of module resolution",
    () =>
      Effect.gen(function* () {
        const { folder, own, files } = yield* unpackClient
        assert.includeMembers([...files], always)
        for (const name of files) {
          if (!always.includes(name)) assert.match(name, /^dist\/[\w/-]+(\.js|\.d\.ts)$/)
        }
        const entries = Object.keys(client.exports).filter((name) => name !== "./package.json")
        for (const name of entries) {
          const conditions = Object.values(client.exports[name]!)
          assert.includeMembers(
            [...files],
            conditions.map((path) => path.slice("./".length)),
          )
        }
        for (const name of files.filter((name) => name.endsWith(".d.ts"))) {
          for (const [, to] of read(join(own, name)).matchAll(/from "(\.[^"]*)"/g)) {
            assert.include(files, join(dirname(name), to!.replace(/\.js$/, ".d.ts")), name)
          }
        }

        // The optional peers too, as their users have them.
        for (const name of [...Object.keys(client.peerDependencies), "@types/node", "@types/pg"]) {
          const path = join(folder, "node_modules", name)
          mkdirSync(dirname(path), { recursive: true })
          if (!existsSync(path)) symlinkSync(resolve("node_modules", name), path)
        }
        const specifiers = entries.map((name) => `@event-ingestor/consumer${name.slice(1)}`)
        const program = specifiers
          .map((specifier, at) => `export * as all${at} from "${specifier}"\n`)
          .join("")
        for (const [module, moduleResolution] of [
          ["nodenext", "nodenext"],
          ["esnext", "bundler"],
        ]) {
          const compilerOptions = { module, moduleResolution, target: "es2024", strict: true, noEmit: true }
          writeFileSync(join(folder, "program.mts"), program)
          const tsconfig = {
            compilerOptions: { ...compilerOptions, types: ["node"] },
            files: ["program.mts"],
          }
          writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(tsconfig))
          execFileSync(resolve("node_modules/.bin/tsc"), ["-p", folder], { encoding: "utf8" })
        }
        for (const specifier of specifiers) {
          const exported = execFileSync(
            process.execPath,
            ["-p", `Object.keys(require(${JSON.stringify(specifier)})).length > 0`],
            { cwd: folder, encoding: "utf8" },
          )
          assert.strictEqual(exported, "true\n", specifier)
        }
      }).pipe(Effect.scoped),
    60_000,
  )

  it("has the licence of the repository, as the wheel does", () => {
    for (const path of ["clients/typescript/LICENSE", "clients/python/LICENSE"]) {
      assert.strictEqual(read(path), read("LICENSE"), path)
    }
  })
})
