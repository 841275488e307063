/**
 * Shutdown and exit codes. SIGTERM and SIGINT interrupt the program, which then has `shutdownTimeout` to finish; a second
 * signal, half a second later or more, ends it at once.
 *
 * Exit codes: 0 clean stop, 1 shutdown timed out or a comparison failed, 128+n second signal; from sysexits.h: 64 wrong
 * usage, 69 unreachable, 78 bad configuration.
 */
import { Cause, Duration, Exit, Runtime } from "effect"

export const exitCode = { ok: 0, failed: 1, usage: 64, unreachable: 69, config: 78 } as const

const signals = { SIGINT: 2, SIGTERM: 15 } as const

/**
 * Signals within this time of the first are the same one (milliseconds): on Ctrl-C the terminal signals npm and this process,
 * and npm forwards the signal to this process once more (`signal-manager.js` of `@npmcli/run-script`).
 */
const forwardedWithin = 500

/** The shutdown timeout, set once the configuration is known, and when the shutdown began (`performance.now()`). */
export const shutdown: { timeout: Duration.Duration; since: number | undefined } = {
  timeout: Duration.seconds(10),
  since: undefined,
}

const codeOf = (exit: Exit.Exit<unknown, unknown>): number => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause))
    return Number(process.exitCode ?? exitCode.ok)
  return Runtime.getErrorExitCode(Cause.squash(exit.cause))
}

/** Runs a program as the whole process. */
export const runMain = Runtime.makeRunMain(({ fiber }) => {
  const onSignal = (signal: keyof typeof signals) => {
    const now = performance.now()
    if (shutdown.since !== undefined) {
      if (now - shutdown.since > forwardedWithin) process.exit(128 + signals[signal])
      return
    }
    shutdown.since = now
    setTimeout(() => {
      process.stderr.write("shutdown took longer than SHUTDOWN_TIMEOUT\n")
      process.exit(exitCode.failed)
    }, Duration.toMillis(shutdown.timeout)).unref()
    fiber.interruptUnsafe(fiber.id)
  }
  for (const signal of Object.keys(signals)) process.on(signal, onSignal)
  fiber.addObserver((exit) => process.exit(codeOf(exit)))
})
