/** The entry point: `start.cjs` loads this file once it has checked the version of Node. */
import { main } from "./cli/main.ts"

main(process.argv.slice(2))
