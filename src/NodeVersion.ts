/** The oldest Node this runs on: `node:sqlite` without a flag, and what Effect needs. */
const oldestNode = "22.19.0"

/** What to do about this version of Node, in one line; `undefined` when it is new enough. */
export const tooOld = (version: string): string | undefined => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  const [needMajor = 0, needMinor = 0] = oldestNode.split(".").map(Number)
  return major > needMajor || (major === needMajor && minor >= needMinor)
    ? undefined
    : `event-ingestor needs Node ${oldestNode} or newer, this is ${version}: run it through npm (npm start), which brings its own`
}
