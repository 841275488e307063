/** The image, as far as it can be checked without building it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile, execFileSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { dirname, join } from "node:path"
import { directory } from "../support/directory.ts"
import { freePort } from "../support/RedisServer.ts"
import { flagsOf, main } from "../support/Service.ts"

const dockerfile = readFileSync("Dockerfile", "utf8").replaceAll(/\\\n\s*/g, "")
const stages = dockerfile
  .split(/^(?=FROM )/m)
  .slice(1)
  .map((stage) => stage.trim().split("\n"))
const last = stages.at(-1)!
const instruction = (name: string) => last.find((line) => line.startsWith(`${name} `))?.slice(name.length + 1)

const { dependencies, devDependencies } = JSON.parse(readFileSync("package.json", "utf8")) as {
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
}

/** The package of an import: `ox/AbiParameters` is in `ox`, `@scope/name/path` in `@scope/name`. */
const packageOf = (path: string) => path.split("/", path.startsWith("@") ? 2 : 1).join("/")

/** The command of the health check, as Docker would run it. */
const check = JSON.parse(/CMD (\[.*\])$/.exec(instruction("HEALTHCHECK")!)![1]!) as ReadonlyArray<string>

const probe = (env: Record<string, string>) =>
  Effect.callback<number>((resume) => {
    execFile(process.execPath, check.slice(1), { env }, (error) =>
      resume(Effect.succeed(error === null ? 0 : Number(error.code))),
    )
  })

const healthServer = (status: number) =>
  Effect.acquireRelease(
    Effect.callback<{ port: number; paths: Array<string>; close: () => void }>((resume) => {
      const paths: Array<string> = []
      const server = createServer(({ url }, response) => {
        paths.push(url!)
        response.writeHead(status, { connection: "close" }).end()
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed({ port, paths, close: () => server.close() }))
      })
    }),
    ({ close }) => Effect.sync(close),
  )

describe("the image", () => {
  it("runs the pinned Node on a scratch base as a non-root user", () => {
    assert.match(dockerfile, new RegExp(`^ARG NODE=node:${devDependencies["node"]}-[a-z]+-slim$`, "m"))
    for (const [from] of stages) assert.match(from!, /^FROM (\$\{NODE\} AS \w+|scratch)$/)
    assert.strictEqual(last[0], "FROM scratch")
    assert.match(instruction("USER")!, /^[1-9]\d*:[1-9]\d*$/)
    assert.isFalse(last.some((line) => line.startsWith("RUN ")))
    assert.include(instruction("ENV"), "HTTP_HOST=0.0.0.0")
  })

  it("starts the service as its entry point, so that SIGTERM reaches it", () => {
    const entry = JSON.parse(instruction("ENTRYPOINT")!) as ReadonlyArray<string>
    assert.deepStrictEqual(entry, ["/usr/local/bin/node", ...flagsOf("src/start.cjs"), "/app/dist/start.cjs"])
    assert.isUndefined(instruction("STOPSIGNAL"))
  })

  it.live("checks its health without a shell, on the port that the service uses", () =>
    Effect.gen(function* () {
      assert.strictEqual(check[0], "/usr/local/bin/node")
      const healthy = yield* healthServer(200)
      assert.strictEqual(yield* probe({ HTTP_PORT: String(healthy.port) }), 0)
      assert.strictEqual(yield* probe({ METRICS_PORT: String(healthy.port) }), 0)
      assert.deepStrictEqual(healthy.paths, ["/health", "/health"])
      const proxy = {
        NODE_USE_ENV_PROXY: "1",
        HTTP_PROXY: "http://127.0.0.1:1",
        http_proxy: "http://127.0.0.1:1",
      }
      assert.strictEqual(yield* probe({ HTTP_PORT: String(healthy.port), ...proxy }), 0)
      assert.strictEqual(yield* probe({ HTTP_PORT: String((yield* healthServer(500)).port) }), 1)
      assert.strictEqual(yield* probe({ HTTP_PORT: String(yield* freePort) }), 1)
    }).pipe(Effect.scoped),
  )

  it("contains every package that the build imports, and Effect only once", () => {
    const dist = dirname(main)
    const sources = readdirSync(dist).filter((file) => file.endsWith(".js"))
    const packages = sources.flatMap((file) =>
      [...readFileSync(join(dist, file), "utf8").matchAll(/^import (?:.* from )?"([^".][^"]*)";$/gm)].map(
        ([, name]) => name!,
      ),
    )
    const foreign = [...new Set(packages.filter((path) => !path.startsWith("node:")).map(packageOf))]
    assert.includeMembers(foreign, ["ioredis", "ws", "@opentelemetry/api", "ox"])
    for (const name of foreign) assert.property(dependencies, name)
    assert.include(dockerfile, "npm prune --omit=dev")
    for (const name of Object.keys(dependencies)) assert.notMatch(name, /^(@effect|effect)(\/|$)/)
  })

  it.effect("shows the commit that the build argument COMMIT names", () =>
    Effect.gen(function* () {
      const build = stages.find(([from]) => from!.endsWith(" AS build"))!
      const argument = build.indexOf("ARG COMMIT")
      assert.isAbove(argument, 0)
      assert.isAbove(
        build.findIndex((line) => line.startsWith("RUN npm run build")),
        argument,
      )
      const place = yield* directory
      execFileSync(process.execPath, ["scripts/build.mjs", place], {
        env: { PATH: process.env["PATH"], COMMIT: "cafe1234" },
      })
      assert.strictEqual(readFileSync(join(place, "commit"), "utf8"), "cafe1234")
    }).pipe(Effect.scoped),
  )

  it("sends the builder only the files that its Dockerfile copies", () => {
    const [first, ...rest] = readFileSync(".dockerignore", "utf8").split("\n").filter(Boolean).slice(1)
    assert.strictEqual(first, "*")
    const copied = stages
      .flat()
      .filter((line) => line.startsWith("COPY ") && !line.includes("--from="))
      .flatMap((line) => line.split(" ").slice(1, -1))
    assert.deepStrictEqual(rest.map((line) => line.slice(1)).toSorted(), copied.toSorted())
    assert.isTrue(rest.every((line) => line.startsWith("!")))
    for (const path of copied) assert.isTrue(existsSync(path), path)
  })
})
