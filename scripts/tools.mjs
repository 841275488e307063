/**
 * Provides the programs that the tests run beside Node: finds each, else installs it from Debian's packages, else says
 * what to type. One line for each that had to be installed, nothing when all are there.
 */
import { execFileSync, spawnSync } from "node:child_process"
import { accessSync, constants, existsSync } from "node:fs"
import { delimiter, join } from "node:path"

/** Program → the Debian package that has it. */
const needed = {
  "redis-server": "redis-server",
  python3: "python3",
  chromium: "chromium",
  prometheus: "prometheus",
  promtool: "prometheus",
  "docker-compose": "docker-compose",
}

/** The services that these packages start, now and at every boot, on ports that are ours by default. */
const services = { "redis-server": "redis-server", prometheus: "prometheus", postgresql: "postgresql" }

/** The Python modules of an example, and of virtual environments: any python3 that has one will do. */
const pythonModules = { redis: "python3-redis", ensurepip: "python3-venv" }

/** Debian puts the programs of Postgres beside the search path. Another server may be named instead. */
const postgres = "/usr/lib/postgresql"
const hasPostgres = () => process.env.PGURL !== undefined || existsSync(postgres)

const find = (program) =>
  process.env.PATH.split(delimiter)
    .map((directory) => join(directory, program))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })

const hasModule = (name) =>
  ["python3", "/usr/bin/python3"].some((python) => spawnSync(python, ["-c", `import ${name}`]).status === 0)

const missing = [
  ...Object.entries(needed).filter(([program]) => find(program) === undefined),
  ...Object.entries(pythonModules).filter(([name]) => !hasModule(name)),
  ...(hasPostgres() ? [] : [["postgres", "postgresql"]]),
]

if (missing.length > 0) {
  const packages = [...new Set(missing.map(([, name]) => name))]
  const command = `apt-get install -y --no-install-recommends ${packages.join(" ")}`
  const root = process.getuid?.() === 0
  const sudo = !root && spawnSync("sudo", ["-n", "true"]).status === 0
  const giveUp = (why) => {
    console.error(`missing: ${missing.map(([program]) => program).join(", ")} (${why})`)
    console.error(
      `install them with:  ${root ? "" : "sudo "}apt-get update && ${root ? "" : "sudo "}${command}`,
    )
    process.exit(1)
  }
  if (find("apt-get") === undefined) giveUp("no apt-get here")
  if (!root && !sudo) giveUp("neither root nor passwordless sudo")
  const run = (line) => {
    const [program, ...args] = (sudo ? `sudo -n ${line}` : line).split(" ")
    execFileSync(program, args, {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    })
  }
  try {
    console.error(`installing ${packages.join(", ")}`)
    run("apt-get update -qq")
    run(`${command} -qq`)
    const started = packages.flatMap((name) => services[name] ?? [])
    // As systemd's own sd_booted(3) finds out whether it runs.
    if (started.length > 0 && existsSync("/run/systemd/system")) {
      run(`systemctl disable --now --quiet ${started.join(" ")}`)
    }
  } catch {
    giveUp("apt-get failed")
  }
}
