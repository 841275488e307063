/** The page at `/`, assembled from three files when the process starts, and its content security policy. */
import { HttpServerResponse } from "effect/http"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"

const read = (name: string) => readFileSync(new URL(`./page/${name}`, import.meta.url), "utf8")

const hash = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

/** Allows only this script and this style, whatever text gets into the page, and connections only to this process. */
const policyFor = (style: string, script: string) =>
  [
    "default-src 'none'",
    `style-src ${hash(style)}`,
    `script-src ${hash(script)}`,
    "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join("; ")

/** Reads the page's files from the `page` directory next to this file, and answers with the page. */
export const load = () => {
  const style = read("page.css")
  const script = read("page.js")
  const html = read("index.html")
    .replace("<style></style>", () => `<style>${style}</style>`)
    .replace('<script type="module"></script>', () => `<script type="module">${script}</script>`)
  return HttpServerResponse.text(html, {
    contentType: "text/html; charset=utf-8",
    headers: {
      "content-security-policy": policyFor(style, script),
      "cache-control": "no-store",
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
    },
  })
}
