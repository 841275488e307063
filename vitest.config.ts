import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    // Most of the time a test waits for a process that it started: more files than cores is right.
    maxWorkers: 3,
    silent: "passed-only",
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
})
