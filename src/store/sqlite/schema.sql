-- The journal of every chain. `events` is public: the fields of a stream entry as columns, and an id that rises with
-- every append of any chain. `removed` is 0 or 1; numbers are integers.
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

-- `event` and `args` of the entries that were decoded (EVENTS). A separate table, so that ingestors without it can write the file.
CREATE TABLE IF NOT EXISTS decoded (
  id    INTEGER PRIMARY KEY REFERENCES events ON DELETE CASCADE,
  event TEXT NOT NULL,
  args  TEXT
) STRICT;

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
  added        INTEGER NOT NULL -- appended in this epoch
) STRICT;

-- The fields that version 2 adds to a head. A separate table, so that version 1 can write the file too. A reset keeps its row.
CREATE TABLE IF NOT EXISTS journals (
  chain_id     INTEGER PRIMARY KEY,
  version      INTEGER NOT NULL,
  epoch        TEXT    NOT NULL, -- opaque: a new value means that entries were lost, or a reset
  epoch_reason TEXT    NOT NULL, -- begun, lost or reset
  first_number INTEGER NOT NULL, -- from this block on every entry is stored
  part_digest  TEXT    NOT NULL, -- identifies the first `part` logs; prefixed with hash, part and added
  abi          TEXT    NOT NULL,
  paused       INTEGER NOT NULL
) STRICT;

-- Earlier epochs, the last 20 of each chain.
CREATE TABLE IF NOT EXISTS epochs (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  chain_id INTEGER NOT NULL,
  epoch    TEXT    NOT NULL
) STRICT;

-- The filter of each journal: its fingerprint, a space, and its addresses and topics as JSON. It counts only if the fingerprint is
-- that of the head.
CREATE TABLE IF NOT EXISTS filter_contents (
  chain_id INTEGER PRIMARY KEY,
  content  TEXT NOT NULL
) STRICT;

-- Replaced filters, the last 20 of each chain.
CREATE TABLE IF NOT EXISTS filters (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  chain_id INTEGER NOT NULL,
  filter   TEXT    NOT NULL,
  UNIQUE (chain_id, filter)
) STRICT;

-- The highest CONFIG_VERSION with which the filter of each journal was changed.
CREATE TABLE IF NOT EXISTS config_versions (
  chain_id INTEGER PRIMARY KEY,
  version  INTEGER NOT NULL
) STRICT;

-- The positions of readers, and how many entries were trimmed before they had read them.
CREATE TABLE IF NOT EXISTS readers (
  chain_id INTEGER NOT NULL,
  name     TEXT    NOT NULL,
  id       INTEGER NOT NULL, -- of the last entry it has read
  "offset" INTEGER NOT NULL,
  block    INTEGER NOT NULL,
  finality TEXT    NOT NULL,
  seen     INTEGER NOT NULL, -- unix seconds
  PRIMARY KEY (chain_id, name)
) STRICT;
CREATE TABLE IF NOT EXISTS missed (
  chain_id INTEGER NOT NULL,
  reader   TEXT    NOT NULL,
  entries  INTEGER NOT NULL,
  PRIMARY KEY (chain_id, reader)
) STRICT;

-- The last heartbeat of an ingestor (unix seconds), which is written every ten seconds.
CREATE TABLE IF NOT EXISTS heartbeats (
  chain_id INTEGER PRIMARY KEY,
  at       INTEGER NOT NULL
) STRICT;

-- The ingestor that has appended last. Another one leaves a gap in the ids: in an older copy of the file, an id is thus not given
-- to another entry again.
CREATE TABLE IF NOT EXISTS writers (
  chain_id INTEGER PRIMARY KEY,
  token    TEXT    NOT NULL
) STRICT;

-- Blocks that can still be retracted, and which entries are theirs.
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
