/** Compiles src to dist (or to the directory that is named), which runs under plain Node, and copies what is not TypeScript. */
import { execFileSync } from "node:child_process"
import { cpSync, rmSync } from "node:fs"

const [to = "dist"] = process.argv.slice(2)
rmSync(to, { recursive: true, force: true })
execFileSync("tsc", ["-p", "tsconfig.build.json", "--outDir", to], { stdio: "inherit" })
cpSync("src", to, { recursive: true, filter: (path) => !path.endsWith(".ts") })
