"""A checkpoint in Postgres, by psycopg 3."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from ..checkpoint import Checkpoint
from ..errors import OptionError
from .sql import POSTGRES, SqlCheckpoint, Tables, ddl_of

if TYPE_CHECKING:
    from psycopg import Connection

    PgConnection: TypeAlias = Connection[Any]


class _Dialect:
    """A connection for each thread, and another one after a failure."""

    def __init__(self, connect: "Callable[[], PgConnection]") -> None:
        self._connect = connect
        self._local = threading.local()
        self._all: list[PgConnection] = []

    def _get(self) -> "PgConnection":
        connection: PgConnection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self._connect()
            if not connection.autocommit:
                connection.autocommit = True
            self._local.connection = connection
            self._all = [*(one for one in self._all if not one.closed), connection]
        return connection

    @contextmanager
    def transaction(self) -> "Iterator[PgConnection]":
        connection = self._get()
        try:
            with connection.transaction():
                yield connection
        except BaseException:
            # A connection whose transaction may still be open is not used again.
            if connection.broken or connection.info.transaction_status != 0:
                with suppress(Exception):
                    connection.close()
            raise

    def query(self, tx: "PgConnection", text: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        from psycopg.rows import tuple_row

        with tx.cursor(row_factory=tuple_row) as cursor:
            # The text is one of this library's own statements.
            cursor.execute(text.replace("?", "%s").encode(), tuple(values))
            return cursor.fetchall() if cursor.description is not None else ()

    def close(self) -> None:
        self._local = threading.local()
        while self._all:
            self._all.pop().close()


class PostgresCheckpoint(SqlCheckpoint["PgConnection"]):
    def __init__(
        self, connect: "Callable[[], PgConnection]", schema: str | None, table: str
    ) -> None:
        self._own = _Dialect(connect)
        super().__init__(self._own, Tables(schema, table), POSTGRES)
        self._arguments = connect, schema, table

    def second(self) -> "Checkpoint[PgConnection] | None":
        return PostgresCheckpoint(*self._arguments)

    def close(self) -> None:
        self._own.close()


def postgres(
    database: "str | Callable[[], PgConnection]",
    *,
    schema: str | None = None,
    table: str = "event_ingestor",
) -> "Checkpoint[PgConnection]":
    """A checkpoint in Postgres, by psycopg 3: exactly once in effect for what is written in its transactions. It opens two connections
    for each reader: one for transactions, one for heartbeats.

    :param database: a conninfo or URL, or a function that opens a ``psycopg.Connection``. The checkpoint sets ``autocommit`` of such a
        connection, and closes it
    :param schema: the schema of the tables; by default the first of the search path
    :param table: the beginning of the names of the tables (letters, digits and ``_``), which are created at the first start
    :raises OptionError: if psycopg is missing, or if a name is not possible
    """
    try:
        import psycopg
    except ImportError as error:
        raise OptionError(
            "checkpoint: postgres(…) needs psycopg 3: pip install 'event_ingestor[postgres]'"
        ) from error
    if callable(database):
        return PostgresCheckpoint(database, schema, table)
    conninfo = database
    return PostgresCheckpoint(
        lambda: psycopg.connect(conninfo, autocommit=True), schema, table
    )


def postgres_ddl(*, schema: str | None = None, table: str = "event_ingestor") -> str:
    """The statements that create the tables of a Postgres checkpoint.

    :param schema: as of ``postgres``
    :param table: as of ``postgres``
    """
    return ddl_of(Tables(schema, table), POSTGRES)
