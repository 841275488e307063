/** The errors of a consumer. Each says what to do. */

/** Any error that ends a consumer. `code` tells them apart. */
export class ConsumerError extends Error {
  override readonly name: string = "ConsumerError"
  readonly code: string

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** An option is missing or wrong, or two of them contradict each other. */
export class OptionError extends ConsumerError {
  override readonly name = "OptionError"

  constructor(message: string) {
    super("OPTION", message)
  }
}

/** Entries that this reader needs are not in the stream: they were trimmed, or its journal starts later. */
export class TrimmedError extends ConsumerError {
  override readonly name = "TrimmedError"
  /** From this block on every entry is there. */
  readonly firstNumber: number

  constructor(chain: number, needed: string, firstNumber: number) {
    super(
      "TRIMMED",
      `chain ${chain}: ${needed}, but the stream is complete only from block ${firstNumber} on. ` +
        `Begin there with another name (from: ${firstNumber}), or let the ingestor start below it`,
    )
    this.firstNumber = firstNumber
  }
}

/** The journal was deleted on purpose (`event-ingestor reset`), and begins anew. */
export class ResetError extends ConsumerError {
  override readonly name = "ResetError"

  constructor(chain: number, name: string) {
    super(
      "RESET",
      `chain ${chain}: the journal was reset, so what ${name} has applied may have no entry any more. ` +
        "Delete what it holds of this chain and begin with another name",
    )
  }
}

/** The ingestor's filter no longer includes what this reader asks for, or it is not known whether it does. */
export class FilterError extends ConsumerError {
  override readonly name = "FilterError"

  constructor(chain: number, why: string) {
    super("FILTER", `chain ${chain}: ${why}`)
  }
}

/** The source is a replica. */
export class ReplicaError extends ConsumerError {
  override readonly name = "ReplicaError"

  constructor() {
    super(
      "REPLICA",
      "this Redis is a replica, which may lack entries that the master has: connect to the master, or by Sentinel or Cluster",
    )
  }
}

/** A command that the reader needs is not allowed. */
export class PermissionError extends ConsumerError {
  override readonly name = "PermissionError"

  constructor(message: string, stream: string) {
    super(
      "PERMISSION",
      `${message}. A reader needs: ACL SETUSER <user> %R~${stream} %R~{${stream}}:head %RW~{${stream}}:readers ` +
        "+xrange +xrevrange +xread +xlen +hgetall +hset +multi +exec +role +info +ping +select",
    )
  }
}

/** The journal was written by a later release. */
export class VersionError extends ConsumerError {
  override readonly name = "VersionError"

  constructor(found: number, known: number) {
    super(
      "VERSION",
      `the journal has version ${found}, and this library knows version ${known}: install a later one`,
    )
  }
}

/** `onError` answered `stop`; `cause` is the handler's error. */
export class StoppedError extends ConsumerError {
  override readonly name = "StoppedError"

  constructor(chain: number, block: number, cause: unknown) {
    super(
      "STOPPED",
      `chain ${chain}: stopped at block ${block}, because its handler failed: ${textOf(cause)}`,
      {
        cause,
      },
    )
  }
}

/** The message of anything that was thrown. */
export const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
