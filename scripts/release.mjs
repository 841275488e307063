/**
 * What a release does to the files of a clone, for .github/workflows/release.yml:
 *
 *     node scripts/release.mjs check v0.2.0                fails unless everything that is published has this version
 *     node scripts/release.mjs prepare v0.2.0 owner/name   names the repository in the packages, and makes the links of READMEs absolute
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { posix } from "node:path"

const [command, tag = "", repository = ""] = process.argv.slice(2)

const read = (path) => readFileSync(path, "utf8")

const json = (path) => JSON.parse(read(path))

const giveUp = (status, ...lines) => {
  for (const line of lines) console.error(line)
  process.exit(status)
}

const usage = "usage: node scripts/release.mjs check v1.2.3, or prepare v1.2.3 owner/name"
if (!/^v\d+\.\d+\.\d+$/.test(tag)) giveUp(64, usage)
const version = tag.slice(1)

/** Each place that has the version. */
const versions = () => ({
  "package.json": json("package.json").version,
  "package-lock.json": json("package-lock.json").packages[""].version,
  "clients/typescript/package.json": json("clients/typescript/package.json").version,
  "clients/python/pyproject.toml": /^version = "(.*)"$/m.exec(read("clients/python/pyproject.toml"))?.[1],
  "deploy/kubernetes/base": /newTag: (\S+)/.exec(read("deploy/kubernetes/base/kustomization.yaml"))?.[1],
  "deploy/kubernetes/overlays/sqlite": /newTag: (\S+)/.exec(
    read("deploy/kubernetes/overlays/sqlite/kustomization.yaml"),
  )?.[1],
})

const check = () => {
  const problems = Object.entries(versions())
    .filter(([, found]) => found !== version)
    .map(([path, found]) => `${path} has version ${found}, the tag is ${tag}`)
  const heading = read("CHANGELOG.md")
    .split("\n")
    .find((line) => line.startsWith(`## [${version}]`))
  if (!/ - \d{4}-\d\d-\d\d$/.test(heading ?? "")) {
    problems.push(
      `CHANGELOG.md has no section "## [${version}] - <date>"${heading ? `, but "${heading}"` : ""}`,
    )
  }
  if (problems.length > 0) giveUp(1, ...problems)
}

/** A README with absolute links to the files of this tag. Code blocks, links within the page and other sites are left alone. */
const withAbsoluteLinks = (text, directory) =>
  text
    .split(/(^```[\s\S]*?^```$)/m)
    .map((part, at) =>
      at % 2 === 1
        ? part
        : part.replaceAll(
            /(!?)(\[(?:[^\][]|\[[^\]]*\])*\]\()([^)\s#:]+)(#[^)\s]*)?\)/g,
            (_, image, label, to, hash = "") => {
              const path = posix.join(directory, to)
              if (!existsSync(path))
                giveUp(1, `a README of ${directory} links to ${to}, which does not exist`)
              const site = image ? "https://raw.githubusercontent.com" : "https://github.com"
              const kind = image ? "" : "blob/"
              return `${image}${label}${site}/${repository}/${kind}${tag}/${path}${hash})`
            },
          ),
    )
    .join("")

const prepare = () => {
  if (!/^[\w.-]+\/[\w.-]+$/.test(repository)) giveUp(64, usage)
  const url = `https://github.com/${repository}`
  for (const directory of [".", "clients/typescript", "clients/python"]) {
    const readme = `${directory}/README.md`
    writeFileSync(readme, withAbsoluteLinks(read(readme), directory))
  }
  for (const directory of [".", "clients/typescript"]) {
    const path = `${directory}/package.json`
    const at = directory === "." ? {} : { directory }
    const manifest = { ...json(path), repository: { type: "git", url: `git+${url}.git`, ...at } }
    writeFileSync(path, `${JSON.stringify(manifest, null, 2)}\n`)
  }
  const project = "clients/python/pyproject.toml"
  const urls = `[project.urls]\nRepository = "${url}"\nChangelog = "${url}/blob/${tag}/CHANGELOG.md"\n\n`
  writeFileSync(project, read(project).replace("[project.optional-dependencies]", `${urls}$&`))
}

const commands = { check, prepare }
if (!Object.hasOwn(commands, command ?? "")) giveUp(64, usage)
commands[command]()
