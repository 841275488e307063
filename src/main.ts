/** The process: `start.cjs` loads this once it knows that Node is new enough. */
import { main } from "./cli/main.ts"

main(process.argv.slice(2))
