/** The version of the package, from its package.json, and the commit it was built from. */
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

export const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}

/** The commit of a git clone, with `-dirty` if its files were changed; `undefined` where this is no clone, or without git. */
const clonedCommit = (): string | undefined => {
  const root = new URL("..", import.meta.url)
  // A directory around the package may be the clone of something else.
  if (!existsSync(new URL(".git", root))) return undefined
  const args = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
  try {
    const printed = execFileSync("git", args, {
      cwd: fileURLToPath(root),
      stdio: ["ignore", "pipe", "ignore"],
    })
    return printed.toString().trim() || undefined
  } catch {
    return undefined
  }
}

/** The commit: what the build wrote beside the code, or for the sources what git says; `undefined` if unknown. */
export const commit = (): string | undefined => {
  const built = new URL("commit", import.meta.url)
  return existsSync(built) ? readFileSync(built, "utf8").trim() || undefined : clonedCommit()
}
