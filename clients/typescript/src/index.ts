/** Event Ingestor's stream in the reader's own database: whole blocks, in order, exactly once, retracted when a reorg replaces them. */
export { changes } from "./Changes.ts"
export type { Change, ChangesOptions } from "./Changes.ts"
export type { Checkpoint, DeadLetter, ReaderId, Save } from "./Checkpoint.ts"
export { atLeastOnce } from "./checkpoints/AtLeastOnce.ts"
export { memory } from "./checkpoints/Memory.ts"
export { postgres } from "./checkpoints/Postgres.ts"
export type { PgClient, PgPool } from "./checkpoints/Postgres.ts"
export { redis } from "./checkpoints/Redis.ts"
export type { Dialect, Tables } from "./checkpoints/Sql.ts"
export { sqlite } from "./checkpoints/Sqlite.ts"
export type { SqliteDatabase } from "./checkpoints/Sqlite.ts"
export type { Hex, Log } from "./Entry.ts"
export {
  ConsumerError,
  FilterError,
  OptionError,
  PermissionError,
  ReplicaError,
  ResetError,
  StoppedError,
  TrimmedError,
  VersionError,
} from "./Errors.ts"
export type { Block, Event } from "./Events.ts"
export { follow } from "./Follow.ts"
export type {
  BlockContext,
  BlocksContext,
  CommonOptions,
  Decision,
  FollowOptions,
  Progress,
} from "./Options.ts"
export type { Finality } from "./Plan.ts"
export type { PackedBlock, Position } from "./Position.ts"
export type { FilterChange, From } from "./Reader.ts"
