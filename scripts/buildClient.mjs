/**
 * Bundles clients/typescript, with its type declarations, into its dist (or into the directory that is named); `npm pack` in
 * clients/typescript makes the package.
 */
import { execFileSync } from "node:child_process"
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { rolldown } from "rolldown"

const client = resolve("clients/typescript")
const to = resolve(process.argv[2] ?? join(client, "dist"))

rmSync(to, { recursive: true, force: true })
const bundle = await rolldown({
  input: ["index.ts", "effect.ts", "Testing.ts"].map((name) => join(client, "src", name)),
  platform: "node",
  // The packages of the user's own program.
  external: (id) => !/^[./]/.test(id),
})
await bundle.write({ dir: to, chunkFileNames: "[name].js" })
await bundle.close()
execFileSync("tsc", ["-p", join(client, "tsconfig.json"), "--outDir", to], { stdio: "inherit" })

// A declaration may not import a file that the package does not have.
for (const name of readdirSync(to, { recursive: true })) {
  if (!name.endsWith(".d.ts")) continue
  const path = join(to, name)
  writeFileSync(path, readFileSync(path, "utf8").replace(/(from "\.[^"]*)\.ts"/g, '$1.js"'))
}
