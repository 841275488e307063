/** The built service (`npm run build`), together with its package.json and its dependencies. */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { copyFileSync, symlinkSync } from "node:fs"
import { join, resolve } from "node:path"
import { directory } from "./directory.ts"

/** Builds the service in a directory that is removed with the scope, and returns the file to run. */
export const build = Effect.map(directory, (place) => {
  const dist = join(place, "dist")
  const bin = resolve("node_modules/.bin")
  execFileSync(process.execPath, ["scripts/build.mjs", dist], {
    env: { ...process.env, PATH: `${bin}:${process.env["PATH"]}` },
    stdio: "inherit",
  })
  copyFileSync("package.json", join(place, "package.json"))
  symlinkSync(resolve("node_modules"), join(place, "node_modules"))
  return join(dist, "start.cjs")
})
