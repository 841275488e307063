/** Compiles src to dist, which runs under plain Node, and copies what is not TypeScript. */
import { execFileSync } from "node:child_process"
import { cpSync, rmSync } from "node:fs"

rmSync("dist", { recursive: true, force: true })
execFileSync("tsc", ["-p", "tsconfig.build.json"], { stdio: "inherit" })
cpSync("src", "dist", { recursive: true, filter: (path) => !path.endsWith(".ts") })
