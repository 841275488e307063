/** The built service of version 0.1 (`test/fixtures/service-0.1`). */
import { Effect } from "effect"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { brotliDecompressSync } from "node:zlib"
import { directory } from "./directory.ts"

const packed = new URL("../fixtures/service-0.1/service.json.br", import.meta.url)

/** Unpacks it into a directory that is removed with the scope, and returns the file to run. */
export const unpack = Effect.map(directory, (place) => {
  const files = JSON.parse(brotliDecompressSync(readFileSync(packed)).toString()) as Record<string, string>
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(place, path)), { recursive: true })
    writeFileSync(join(place, path), text)
  }
  return join(place, "dist", "main.js")
})
