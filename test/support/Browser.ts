/** A real, headless Chromium, and the errors of its console. */
import { Context, Effect, Layer } from "effect"
import { accessSync, constants, readFileSync } from "node:fs"
import { delimiter, join } from "node:path"
import { chromium } from "playwright-core"
import type { Browser as Chromium, BrowserContextOptions, Page } from "playwright-core"

const flags = [
  // In a container, tests run as root, and Chromium has no sandbox for root.
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
]

const find = (program: string): string => {
  const paths = process.env["PATH"]!.split(delimiter).map((place) => join(place, program))
  const found = paths.find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
  if (found === undefined) throw new Error(`${program} not found: node scripts/tools.mjs installs it`)
  return found
}

export class Browser extends Context.Service<Browser, Chromium>()("test/Browser") {
  static readonly layer = Layer.effect(
    this,
    Effect.acquireRelease(
      Effect.promise(() => chromium.launch({ executablePath: find("chromium"), args: flags })),
      (browser) => Effect.promise(() => browser.close()),
    ),
  )
}

export interface Opened {
  readonly page: Page
  /** Errors of the console and of scripts, including violations of the content security policy. */
  readonly complaints: ReadonlyArray<string>
  /** The response headers of the page. */
  readonly headers: Readonly<Record<string, string>>
  readonly status: number
}

/** Opens the page of a service in a separate browser profile. */
export const open = Effect.fnUntraced(function* (port: number, options: BrowserContextOptions = {}) {
  const browser = yield* Browser
  const context = yield* Effect.acquireRelease(
    Effect.promise(() => browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })),
    (context) => Effect.promise(() => context.close()),
  )
  const page = yield* Effect.promise(() => context.newPage())
  page.setDefaultTimeout(20_000)
  const complaints: Array<string> = []
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()))
  page.on("pageerror", (error) => complaints.push(String(error)))
  const answer = yield* Effect.promise(() => page.goto(`http://127.0.0.1:${port}/`))
  return { page, complaints, headers: answer!.headers(), status: answer!.status() } satisfies Opened as Opened
})

const contrast = readFileSync(new URL("contrast.js", import.meta.url), "utf8")

export interface Legibility {
  readonly text: string
  readonly ratio: number
}

/** The WCAG contrast ratio of every visible text, lowest first. */
export const legibility = (page: Page): Promise<ReadonlyArray<Legibility>> => page.evaluate(contrast)
