"""Reads the stream of a chain in the ingestor's SQLite file."""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .entry import Entry, head_of
from .source import Report, Snapshot, SourceUnavailable

A = TypeVar("A")

_POLL_INTERVAL = 0.05
"""How often a file is asked for changes (seconds)."""

_HIGHEST = 2**53 - 1

_COLUMNS = (
    "events.id, chain_id, block_number, block_hash, tx_hash, log_index, contract, topics, data, timestamp, tx_index, "
    "removed, traceparent, event, args"
)
_TABLE = "events LEFT JOIN decoded ON decoded.id = events.id"
_NAMES = [name.strip() for name in _COLUMNS.split(",")][1:]


def _entry_of(row: Sequence[Any]) -> Entry:
    fields = {name: str(value) for name, value in zip(_NAMES, row[1:], strict=True) if value is not None}
    fields["removed"] = "true" if fields["removed"] == "1" else "false"
    return Entry(str(row[0]), fields)


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


class SqliteSource:
    """The stream of a chain. ``path``: of the ingestor's file (``DATABASE_PATH``)."""

    lowest = "0"

    def __init__(self, path: str, chain: int) -> None:
        self._path = path
        self._chain = chain
        self._database: sqlite3.Connection | None = None
        # The file and its write-ahead log as they were opened: an older copy may replace them at any time.
        self._opened: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None)

    def compare(self, one: str, other: str) -> int:
        return int(one) - int(other)

    def _run(self, use: Callable[[sqlite3.Connection], A]) -> A:
        try:
            found = self._files()
            if found != self._opened:
                self.close()
            if self._database is not None:
                return use(self._database)
            file, log = found
            # It is not created.
            if file is None:
                raise OSError("there is no such file")
            opened_file, opened_log = self._opened
            # SQLite would take the pages of that log for pages of this file, and this connection would keep the ingestor from
            # deleting it.
            if opened_file is not None and file != opened_file and log is not None and log == opened_log:
                raise OSError(
                    "the file was replaced, but the write-ahead log beside it is still that of the file before"
                )
            self._database = sqlite3.connect(
                self._path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
            result = use(self._database)
            # The first use creates a log if there is none.
            self._opened = self._files() if log is None else found
            return result
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise SourceUnavailable(f"{self._path}: {error}") from error

    def _files(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        return _identity_of(self._path), _identity_of(f"{self._path}-wal")

    def _one(self, database: sqlite3.Connection, sql: str, *values: Any) -> dict[str, Any] | None:
        cursor = database.execute(sql, values)
        row = cursor.fetchone()
        cursor.close()
        return row and {column[0]: value for column, value in zip(cursor.description, row, strict=True)}

    def _head_fields(self, database: sqlite3.Connection) -> dict[str, str]:
        head = self._one(database, "SELECT * FROM heads WHERE chain_id = ?", self._chain)
        if head is None:
            return {}
        journal = self._one(database, "SELECT * FROM journals WHERE chain_id = ?", self._chain)
        content = "SELECT content AS filter_content FROM filter_contents WHERE chain_id = ?"
        try:
            described = self._one(database, content, self._chain)
        # An earlier version of the ingestor has not created it.
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            described = None
        all_ = {**head, **(journal or {}), **(described or {})}
        return {name: str(value) for name, value in all_.items() if value is not None}

    def snapshot(self, known: Sequence[str], after: str, count: int, up_to: str | None = None) -> Snapshot:
        def look(database: sqlite3.Connection) -> Snapshot:
            database.execute("BEGIN")
            try:
                fields = self._head_fields(database)
                # Two queries: SQLite answers only a single min or max from the index.
                ends = self._one(
                    database,
                    "SELECT (SELECT min(id) FROM events WHERE chain_id = ?) AS first, "
                    "(SELECT max(id) FROM events WHERE chain_id = ?) AS last",
                    self._chain,
                    self._chain,
                )
                assert ends is not None
                rows = [
                    database.execute(
                        f"SELECT {_COLUMNS} FROM {_TABLE} WHERE events.id = ? AND chain_id = ?",
                        (int(id_), self._chain),
                    ).fetchone()
                    for id_ in known
                ]
                return Snapshot(
                    head=head_of(fields),
                    length=int(fields.get("entries", 0)),
                    first=None if ends["first"] is None else str(ends["first"]),
                    last=None if ends["last"] is None else str(ends["last"]),
                    known=[None if row is None else _entry_of(row) for row in rows],
                    page=self._page(database, after, up_to, count) if count > 0 else [],
                )
            finally:
                if database.in_transaction:
                    database.execute("COMMIT")

        return self._run(look)

    def _page(self, database: sqlite3.Connection, after: str, up_to: str | None, count: int) -> list[Entry]:
        rows = database.execute(
            f"SELECT {_COLUMNS} FROM {_TABLE} WHERE chain_id = ? AND events.id > ? AND events.id <= ? ORDER BY events.id LIMIT ?",
            (self._chain, int(after), _HIGHEST if up_to is None else int(up_to), count),
        )
        return [_entry_of(row) for row in rows]

    def read(self, after: str, up_to: str, count: int) -> Sequence[Entry]:
        return self._run(lambda database: self._page(database, after, up_to, count))

    def read_back(self, from_: str, count: int) -> Sequence[Entry]:
        def read(database: sqlite3.Connection) -> list[Entry]:
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM {_TABLE} WHERE chain_id = ? AND events.id <= ? ORDER BY events.id DESC LIMIT ?",
                (self._chain, int(from_), count),
            )
            return [_entry_of(row) for row in rows]

        return self._run(read)

    def changed(self, after: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self._run(
                lambda database: self._one(
                    database,
                    "SELECT 1 AS found FROM events WHERE chain_id = ? AND id > ? LIMIT 1",
                    self._chain,
                    int(after),
                )
            )
            if found is not None:
                return
            time.sleep(_POLL_INTERVAL)

    def report(self, reader: str, report: Report) -> None:
        def write(database: sqlite3.Connection) -> None:
            database.execute(
                'INSERT INTO readers (chain_id, name, id, "offset", block, finality, seen) '
                "VALUES (?, ?, ?, ?, ?, ?, unixepoch()) "
                'ON CONFLICT (chain_id, name) DO UPDATE SET id = excluded.id, "offset" = excluded."offset", '
                "block = excluded.block, finality = excluded.finality, seen = excluded.seen",
                (self._chain, reader, int(report.id), report.offset, report.block, report.finality),
            )

        self._run(write)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
