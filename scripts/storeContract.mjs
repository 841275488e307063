/** `npm run store-contract -- redis://host:6379/0`: what every store promises, tried on a server of yours. */
import { spawnSync } from "node:child_process"

const [url, ...rest] = process.argv.slice(2)
if (!/^rediss?:\/\//.test(url ?? "") || rest.length > 0) {
  console.error("usage: npm run store-contract -- redis://[user:password@]host:port[/database]")
  process.exit(64)
}
const { status } = spawnSync(
  "vitest",
  ["run", "test/unit/store/redis/RedisStore.test.ts", "-t", "keeps the contract of a store"],
  {
    stdio: "inherit",
    env: { ...process.env, STORE_CONTRACT_URL: url },
  },
)
process.exit(status ?? 1)
