import { Effect } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { ours } from "./ours.ts"
import type { Subject } from "./Subject.ts"

/** Accepts everything that is exported to it, as a collector on the same machine would. */
const receiver = Effect.acquireRelease(
  Effect.promise(async () => {
    let requests = 0
    const server = createServer((request, response) => {
      requests++
      request.resume().on("end", () => response.setHeader("content-type", "application/json").end("{}"))
    })
    await new Promise<void>((listening) => void server.listen(0, "127.0.0.1", listening))
    return { server, port: (server.address() as AddressInfo).port, requests: () => requests }
  }),
  ({ server }) => Effect.sync(() => server.close()),
)

/** The service with traces, metrics and logs going to an OTLP receiver. */
const withTelemetry = (name: string, env: Readonly<Record<string, string>>): Subject => ({
  name,
  start: (where) =>
    Effect.gen(function* () {
      const { port, requests } = yield* receiver
      const child = yield* ours.start({
        ...where,
        env: {
          ...where.env,
          OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
          // Often enough to matter in a run of seconds.
          OTEL_METRIC_EXPORT_INTERVAL: "1000",
          OTEL_BSP_SCHEDULE_DELAY: "1000",
          ...env,
        },
      })
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          if (requests() === 0) process.stderr.write("nothing was exported: this is ours without telemetry\n")
        }),
      )
      return child
    }),
})

/** Every block is traced. */
export const telemetry = withTelemetry("ours + telemetry", {})

/** No block is traced. */
export const unsampled = withTelemetry("ours + telemetry, unsampled", {
  OTEL_TRACES_SAMPLER: "always_off",
})
