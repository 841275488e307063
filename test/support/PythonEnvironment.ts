/** A virtual environment with what the Python client and its tests need. */
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")

/** Where the Python client is. */
export const project = join(root, "clients/python")

/** Where virtual environments and caches are kept between runs. */
export const cache = join(root, "node_modules/.cache/python-client")

const requirements = join(project, "requirements-test.txt")

interface Result {
  readonly code: number
  readonly output: string
}

/** Runs a program to its end, in the directory of the client. */
const run = (program: string, args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  new Promise<Result>((resolve) => {
    const options = {
      cwd: project,
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1", ...env },
      maxBuffer: 1e8,
    }
    execFile(program, args, options, (error, stdout, stderr) =>
      resolve({
        code: error === null ? 0 : typeof error.code === "number" ? error.code : 1,
        output: stdout + stderr,
      }),
    )
  })

/** Runs a program that must succeed. @returns its output */
export const succeed = async (
  what: string,
  program: string,
  args: ReadonlyArray<string>,
  env: Record<string, string> = {},
): Promise<string> => {
  const { code, output } = await run(program, args, env)
  if (code !== 0) throw new Error(`${what} failed:\n${output}`)
  return output
}

/** A Python that can make virtual environments, and its version. */
const findPython = async () => {
  for (const program of ["python3", "/usr/bin/python3"]) {
    const script = "import ensurepip, sys; assert sys.version_info >= (3, 11); print(sys.version)"
    const { code, output } = await run(program, ["-c", script])
    if (code === 0) return { program, version: output }
  }
  throw new Error(
    "a Python of version 3.11 or later with ensurepip is missing: apt-get install python3 python3-venv",
  )
}

/** Makes the environment with the pinned requirements, once for all runs. @returns its Python */
export const environment = async (): Promise<string> => {
  const { program, version } = await findPython()
  const key = createHash("sha256")
    .update(version)
    .update(readFileSync(requirements))
    .digest("hex")
    .slice(0, 16)
  const path = join(cache, key)
  if (!existsSync(path)) {
    mkdirSync(cache, { recursive: true })
    const fresh = join(cache, `${key}.${process.pid}`)
    await succeed("python3 -m venv", program, ["-m", "venv", fresh])
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    const { code, output } = await run(join(fresh, "bin/python"), pip)
    if (code !== 0) {
      rmSync(fresh, { recursive: true })
      throw new Error(
        `pip could not install ${requirements}, which needs PyPI (or PIP_INDEX_URL, a mirror of it):\n${output}`,
      )
    }
    try {
      renameSync(fresh, path)
    } catch {
      // Another run was faster.
      rmSync(fresh, { recursive: true })
    }
  }
  // Its scripts have the path that it was made at: modules are run instead.
  return join(path, "bin/python")
}

/** Builds the wheel and installs it in a directory of its own. @returns Python, and an environment that finds the package */
export const installWheel = async (target: string) => {
  const python = await environment()
  const pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
  const wheels = join(target, "wheels")
  const build = ["wheel", project, "--no-deps", "--no-build-isolation", "--wheel-dir", wheels]
  await succeed("pip wheel", python, [...pip, ...build])
  const [wheel] = readdirSync(wheels)
  const site = join(target, "site")
  const install = ["install", "--no-deps", "--no-index", "--target", site, join(wheels, wheel!)]
  await succeed("pip install", python, [...pip, ...install])
  return { python, wheel, site, env: { PYTHONPATH: site } }
}
