/**
 * `node:http`, not imported as an ES module: such an import reads every export, of which `WebSocket` loads the library undici.
 * A process that serves and sends a little HTTP would take 3 MB more memory for it.
 */
const { createServer, STATUS_CODES, validateHeaderName, validateHeaderValue } =
  process.getBuiltinModule("node:http")

export { createServer, STATUS_CODES, validateHeaderName, validateHeaderValue }
