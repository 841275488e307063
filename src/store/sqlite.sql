-- The journal of every chain. `events` is public: the fields of a stream entry as columns, and an id that rises with
-- every append of any chain. `removed` is 0 or 1; numbers are numbers.
CREATE TABLE IF NOT EXISTS events (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  chain_id     INTEGER NOT NULL,
  block_number INTEGER NOT NULL,
  block_hash   TEXT    NOT NULL,
  tx_hash      TEXT    NOT NULL,
  log_index    INTEGER NOT NULL,
  contract     TEXT    NOT NULL,
  topics       TEXT    NOT NULL,
  data         TEXT    NOT NULL,
  timestamp    INTEGER NOT NULL,
  tx_index     INTEGER NOT NULL,
  removed      INTEGER NOT NULL,
  traceparent  TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_chain ON events (chain_id);

CREATE TABLE IF NOT EXISTS heads (
  chain_id     INTEGER PRIMARY KEY,
  number       INTEGER NOT NULL,
  hash         TEXT    NOT NULL,
  part         INTEGER NOT NULL,
  final_number INTEGER,
  final_hash   TEXT,
  start_number INTEGER NOT NULL,
  start_hash   TEXT    NOT NULL,
  filter       TEXT    NOT NULL,
  filter_since INTEGER NOT NULL,
  entries      INTEGER NOT NULL, -- in `events` now
  added        INTEGER NOT NULL, -- appended ever
  part_digest  TEXT    NOT NULL DEFAULT '' -- which logs the first `part` are, with hash and part in front
) STRICT;

-- Blocks that can still be undone, and which entries are theirs.
CREATE TABLE IF NOT EXISTS window (
  chain_id INTEGER NOT NULL,
  number   INTEGER NOT NULL,
  hash     TEXT    NOT NULL,
  parent   TEXT    NOT NULL,
  first_id INTEGER NOT NULL,
  last_id  INTEGER NOT NULL,
  count    INTEGER NOT NULL,
  PRIMARY KEY (chain_id, number)
) STRICT, WITHOUT ROWID;
