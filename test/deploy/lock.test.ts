/** The lock file must install with any npm version and any registry. */
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

describe("the installed Node versions", () => {
  it("are the pinned one and the oldest supported one", () => {
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

  // npm skips an optional package whose `engines` require a newer Node.
  it("lets Node 20 install the binaries of its platform", () => {
    const allowsNode20 = (range: string) =>
      range.split("||").some((part) => Number(/\d+/.exec(part)?.[0] ?? 0) <= 20)
    assert.deepStrictEqual(
      Object.entries(packages).flatMap(([name, { optional, os, engines }]) =>
        optional === true && os !== undefined && !allowsNode20(engines?.node ?? "") ? [name] : [],
      ),
      [],
    )
  })
})
