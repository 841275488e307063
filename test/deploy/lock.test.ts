/** The lock file is installed by whatever npm a new machine has, and a registry of anybody's choice. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"

interface Package {
  readonly version?: string
  readonly devDependencies?: Readonly<Record<string, string>>
  readonly resolved?: string
  readonly optional?: boolean
  readonly os?: ReadonlyArray<string>
  readonly engines?: { readonly node?: string }
}

const { packages } = JSON.parse(
  readFileSync(new URL("../../package-lock.json", import.meta.url), "utf8"),
) as { readonly packages: Readonly<Record<string, Package>> }

const versionOf = (path: string) => execFileSync(path, ["--version"], { encoding: "utf8" }).trim()

describe("the Node that tests run on", () => {
  it("is the newest of the two that are installed, and the oldest that is promised", () => {
    const { engines, devDependencies } = packages[""]!
    assert.strictEqual(versionOf("node_modules/.bin/node"), `v${devDependencies!["node"]}`)
    assert.strictEqual(`>=${versionOf("node_modules/node22/bin/node").slice(1)}`, engines!.node)
  })
})

describe("package-lock.json", () => {
  it("names no registry host", () => {
    assert.deepStrictEqual(
      Object.entries(packages).flatMap(([name, { resolved }]) => (resolved === undefined ? [] : [name])),
      [],
    )
  })

  it("lets Node 20 install the binaries of a platform: npm leaves out those that ask for a newer one", () => {
    const admits = (range: string) =>
      range.split("||").some((part) => Number(/\d+/.exec(part)?.[0] ?? 0) <= 20)
    assert.deepStrictEqual(
      Object.entries(packages).flatMap(([name, { optional, os, engines }]) =>
        optional === true && os !== undefined && !admits(engines?.node ?? "") ? [name] : [],
      ),
      [],
    )
  })
})
