"""A checkpoint in a SQLite database of the user."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..checkpoint import Checkpoint
from ..errors import OptionError
from .sql import SQLITE, SqlCheckpoint, Tables, ddl_of

_PATIENCE = 30.0
"""How long a transaction waits for those of other processes (seconds)."""


class _Opener:
    """Opens a connection to a file for each thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []

    def get(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._local.connection = connection
            self._all.append(connection)
        return connection

    def close(self) -> None:
        self._local = threading.local()
        while self._all:
            self._all.pop().close()


def _end(connection: sqlite3.Connection, statement: str, method: Callable[[], None]) -> None:
    """Ends a transaction. With ``autocommit=True`` (Python 3.12), the connection's own methods do nothing."""
    if getattr(connection, "autocommit", False) is True:
        connection.execute(statement)
    else:
        method()


class _Dialect:
    def __init__(self, database: _Opener | sqlite3.Connection) -> None:
        self._database = database
        self._changes = 0 if isinstance(database, _Opener) else database.total_changes

    @property
    def has_open_writes(self) -> bool:
        """Whether the user has begun a transaction on the connection that was given."""
        database = self._database
        if isinstance(database, _Opener) or not database.in_transaction:
            return False
        # With ``autocommit=False`` (Python 3.12), there is always one.
        return getattr(database, "autocommit", None) is not False or database.total_changes != self._changes

    def _connection(self) -> sqlite3.Connection:
        database = self._database
        return database.get() if isinstance(database, _Opener) else database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        # A transaction that the user has begun is continued, and ends with this one.
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            _end(connection, "COMMIT", connection.commit)
        except BaseException:
            # SQLite itself ends a transaction after some errors.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    _end(connection, "ROLLBACK", connection.rollback)
            raise
        finally:
            with suppress(sqlite3.Error):
                self._changes = connection.total_changes

    def query(
        self, tx: sqlite3.Connection, text: str, values: Sequence[Any] = ()
    ) -> Sequence[Sequence[Any]]:
        cursor = tx.cursor()
        cursor.row_factory = None
        return cursor.execute(text, values).fetchall()

    def close(self) -> None:
        if isinstance(self._database, _Opener):
            self._database.close()


class SqliteCheckpoint(SqlCheckpoint[sqlite3.Connection]):
    def __init__(self, database: _Opener | sqlite3.Connection, path: str, table: str) -> None:
        self._own = _Dialect(database)
        super().__init__(self._own, Tables(None, table), SQLITE)
        self._arguments = path, table

    @property
    def has_open_writes(self) -> bool:
        return not self.in_transaction and self._own.has_open_writes

    def second(self) -> Checkpoint[sqlite3.Connection] | None:
        # A database in memory belongs to one connection, and so to one process.
        path = self._arguments[0]
        return SqliteCheckpoint(_Opener(path), *self._arguments) if path else None

    def close(self) -> None:
        self._own.close()


def sqlite(
    database: str | os.PathLike[str] | sqlite3.Connection,
    *,
    table: str = "event_ingestor",
) -> Checkpoint[sqlite3.Connection]:
    """A checkpoint in SQLite: exactly once in effect for what is written in its transactions.

    :param database: the path of a file, to which each thread gets its own connection; or a connection. What that connection has
        written in an open transaction is committed together with the position, also by ``block.commit()``, and by nothing else: roll
        it back before you call ``follow`` again
    :param table: the beginning of the names of the tables (letters, digits and ``_``), which are created at the first start
    :raises OptionError: if a name is not possible, or if the database is in memory and no connection is given
    """
    if isinstance(database, sqlite3.Connection):
        cursor = database.cursor()
        cursor.row_factory = None
        files = {name: file for _, name, file in cursor.execute("PRAGMA database_list").fetchall()}
        return SqliteCheckpoint(database, files.get("main") or "", table)
    path = os.fspath(database)
    if path in ("", ":memory:"):
        raise OptionError("checkpoint: a database in memory needs a connection: sqlite(sqlite3.connect(':memory:'))")
    return SqliteCheckpoint(_Opener(path), path, table)


def sqlite_ddl(*, table: str = "event_ingestor") -> str:
    """The statements that create the tables of a SQLite checkpoint.

    :param table: as of ``sqlite``
    """
    return ddl_of(Tables(None, table), SQLITE)
