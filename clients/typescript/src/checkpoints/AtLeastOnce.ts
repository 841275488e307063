/** A checkpoint whose handlers are in no transaction of it. */
import type { Checkpoint } from "../Checkpoint.ts"

/**
 * Stores the state after the handler, which runs outside of any transaction and may run again for the same block: for handlers that
 * call another service, and take longer than a transaction should.
 *
 * @param checkpoint a checkpoint that has transactions: `postgres(…)` or `sqlite(…)`
 */
export const atLeastOnce = <Tx>(checkpoint: Checkpoint<Tx>): Checkpoint<undefined> =>
  // Handlers get `undefined`; the library passes the checkpoint's own transactions back to it.
  ({ ...checkpoint, atLeastOnce: true }) as unknown as Checkpoint<undefined>
