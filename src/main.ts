/** The process: `start.cjs` loads this once it knows that Node is new enough. */
import { main } from "./commands/main.ts"

main(process.argv.slice(2))
