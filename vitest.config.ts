import { defineConfig } from "vitest/config"
import { BaseSequencer } from "vitest/node"
import type { TestSpecification } from "vitest/node"

/** Begins with what takes longest: else it is waited for at the end. */
class LongestFirst extends BaseSequencer {
  static readonly longest = [
    "chaos",
    "commands",
    "simulation",
    "pipeline",
    "bounds",
    "RedisStore",
    "clients",
    "python",
    "fleet",
    "consumers",
  ]

  override async sort(files: Array<TestSpecification>) {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LongestFirst.longest.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`))
      return at === -1 ? LongestFirst.longest.length : at
    }
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    projects: [
      // Functions and modules, in virtual time, with real stores: a minute.
      { extends: true, test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      // The service and its clients as a whole, in processes and against real nodes, and what is around them.
      {
        extends: true,
        test: { name: "system", include: ["test/{system,world,clients,deploy}/**/*.test.ts"] },
      },
    ],
    globalSetup: ["test/support/watched.ts", "test/support/buildOnce.ts"],
    pool: "forks",
    // Most of the time a test waits for a process that it started: more files than cores is right.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    silent: "passed-only",
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
