/** The workflows of GitHub Actions, checked by GitHub's own parser, and what the release does to the files. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { parse } from "yaml"
import { directory } from "../support/directory.ts"
import { workflowProblems } from "../support/workflowProblems.ts"

const folder = ".github/workflows"

interface Step {
  readonly uses?: string
  readonly run?: string
}

interface Job {
  readonly uses?: string
  readonly permissions?: Readonly<Record<string, string>>
  readonly "timeout-minutes"?: number
  readonly container?: { readonly image: string }
  readonly steps?: ReadonlyArray<Step>
}

interface Workflow {
  readonly permissions: unknown
  readonly concurrency: unknown
  readonly jobs: Readonly<Record<string, Job>>
}

const workflows = readdirSync(folder).map((name) => {
  const text = readFileSync(join(folder, name), "utf8")
  return { ...(parse(text) as Workflow), name, text }
})

const jobs = workflows.flatMap(({ name, jobs }) =>
  Object.entries(jobs).map(([id, job]) => ({ name: `${name}: ${id}`, ...job })),
)

const { version, devDependencies } = JSON.parse(readFileSync("package.json", "utf8")) as {
  readonly version: string
  readonly devDependencies: Readonly<Record<string, string>>
}

describe("the workflows", () => {
  it("are accepted by GitHub's parser, which finds mistakes", async () => {
    assert.sameMembers(
      workflows.map(({ name }) => name),
      ["ci.yml", "release.yml"],
    )
    for (const { name, text } of workflows) assert.deepStrictEqual(await workflowProblems(name, text), [])
    const { text } = workflows.find(({ name }) => name === "ci.yml")!
    for (const [from, to] of [
      ["runs-on", "run-on"],
      ["contents: read", "contents: reed"],
      ["github.event_name", "matrix.event_name"],
    ]) {
      assert.include(text, from!)
      assert.isNotEmpty(await workflowProblems("broken.yml", text.replace(from!, to!)), to)
    }
  })

  it("pin each action to a commit, and give each job a time limit and the least rights", () => {
    for (const { name, text, permissions, concurrency } of workflows) {
      assert.deepStrictEqual(permissions, {}, name)
      assert.isDefined(concurrency, name)
      assert.notMatch(text, /\bsecrets\b|pull_request_target/, name)
      for (const line of text.split("\n").filter((line) => /\buses: (?!\.\/)/.test(line))) {
        assert.match(line, /uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/)
      }
    }
    for (const { name, uses, permissions, steps = [], ...job } of jobs) {
      if (uses === undefined) assert.isAtMost(job["timeout-minutes"] ?? Infinity, 90, name)
      assert.isDefined(permissions, name)
      // A job that may publish as this repository runs nothing of it, and so none of its dependencies.
      if (permissions?.["id-token"] === "write") {
        assert.deepStrictEqual(permissions, { "id-token": "write" }, name)
        assert.isFalse(
          steps.some(({ uses }) => uses?.startsWith("actions/checkout@")),
          name,
        )
      }
      // An expression in a script could bring a command with it.
      for (const { run } of steps) assert.notInclude(run ?? "", "${{", name)
    }
  })

  it("run .ci/run, on the pinned Node", () => {
    const steps = jobs.flatMap(({ steps = [] }) => steps)
    assert.strictEqual(steps.filter(({ run }) => run === ".ci/run").length, 1)
    const texts = workflows.map(({ text }) => text).join("\n")
    const versions = [...texts.matchAll(/(?:node-version: |image: node:)(\d+\.\d+\.\d+)/g)].map(
      ([, node]) => node,
    )
    assert.isAbove(versions.length, 2)
    assert.deepStrictEqual([...new Set(versions)], [devDependencies["node"]])
    for (const [, path] of texts.matchAll(/\b(scripts\/\S+|\.ci\/run|clients\/\S+requirements-test\.txt)/g)) {
      assert.isTrue(existsSync(path!), path)
    }
  })
})

describe("scripts/release.mjs", () => {
  const script = resolve("scripts/release.mjs")

  const copy = Effect.map(directory, (place) => {
    for (const path of [
      "package.json",
      "package-lock.json",
      "LICENSE",
      "deploy/kubernetes",
      "docs",
      "examples",
      "bench",
    ]) {
      cpSync(path, join(place, path), { recursive: true })
    }
    for (const path of [...readdirSync(".").filter((name) => name.endsWith(".md")), "clients"]) {
      cpSync(path, join(place, path), {
        recursive: true,
        filter: (path) => !/dist|_cache|__pycache__/.test(path),
      })
    }
    return {
      path: (name: string) => join(place, name),
      read: (name: string) => readFileSync(join(place, name), "utf8"),
      release: (...args: ReadonlyArray<string>) => {
        const { status, stderr } = spawnSync(process.execPath, [script, ...args], {
          cwd: place,
          encoding: "utf8",
        })
        return { status, problems: stderr.split("\n").filter(Boolean) }
      },
    }
  })

  it.effect("accepts a tag only if every package has its version, and the changelog its section", () =>
    Effect.gen(function* () {
      const { path, read, release } = yield* copy
      const others = read("CHANGELOG.md").replace(/^## \[(Unreleased|\d+\.\d+\.\d+)\].*$/m, "## [other]")
      const withHeading = (heading: string) =>
        writeFileSync(path("CHANGELOG.md"), others.replace("## [other]", heading))
      for (const heading of ["## [Unreleased]", `## [${version}] - Unreleased`]) {
        withHeading(heading)
        const unreleased = release("check", `v${version}`)
        assert.strictEqual(unreleased.status, 1)
        assert.lengthOf(unreleased.problems, 1)
        assert.include(unreleased.problems[0], `no section "## [${version}] - <date>"`)
      }
      withHeading(`## [${version}] - 2026-12-01`)
      assert.deepStrictEqual(release("check", `v${version}`), { status: 0, problems: [] })
      const other = release("check", "v99.0.0")
      assert.strictEqual(other.status, 1)
      assert.lengthOf(other.problems, 7)
      for (const tag of ["", version, "v1", "v1.2.3-rc.1", "v1.2.3;id"]) {
        assert.strictEqual(release("check", tag).status, 64, tag)
      }
    }).pipe(Effect.scoped),
  )

  it.effect("makes the links of the published READMEs absolute, and names the repository", () =>
    Effect.gen(function* () {
      const { read, release } = yield* copy
      assert.deepStrictEqual(release("prepare", `v${version}`, "owner/name"), { status: 0, problems: [] })
      const packages = ["", "clients/typescript/", "clients/python/"]
      for (const at of packages) {
        const text = read(`${at}README.md`).replaceAll(/^```[\s\S]*?^```$/gm, "")
        const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, to]) => to!)
        assert.isAbove(links.length, 2)
        for (const link of links) assert.match(link, /^(#|https:\/\/)/, at)
      }
      const consuming = `https://github.com/owner/name/blob/v${version}/docs/CONSUMING.md`
      for (const at of packages.slice(1)) assert.include(read(`${at}README.md`), `](${consuming})`)
      const url = "git+https://github.com/owner/name.git"
      assert.deepInclude(JSON.parse(read("package.json")), { repository: { type: "git", url } })
      assert.deepInclude(JSON.parse(read("clients/typescript/package.json")), {
        repository: { type: "git", url, directory: "clients/typescript" },
      })
      assert.match(
        read("clients/python/pyproject.toml"),
        /^Repository = "https:\/\/github\.com\/owner\/name"$/m,
      )
      assert.strictEqual(release("prepare", `v${version}`, "owner").status, 64)
    }).pipe(Effect.scoped),
  )
})
