"""What the checkpoints in SQL databases share: the tables, their versions, and the statements.

They are those of the TypeScript client: each of the two can continue a position of the other one.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from ..checkpoint import ReaderId, Save, Tx
from ..errors import OptionError
from ..position import PackedBlock, Position, position_of, position_text


class Dialect(Protocol[Tx]):
    """How a database runs a transaction and a query. Parameters are ``?``."""

    def transaction(self) -> AbstractContextManager[Tx]: ...

    def query(self, tx: Tx, text: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True, slots=True)
class Flavour:
    """What differs between the databases."""

    integer: str
    identity: str
    now: str
    lock: str
    """Locks the selected row until the transaction ends."""


POSTGRES = Flavour(
    integer="bigint",
    identity="bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    now="timestamptz NOT NULL DEFAULT now()",
    lock=" FOR UPDATE",
)

# A transaction that begins IMMEDIATE has locked the file.
SQLITE = Flavour(
    integer="INTEGER",
    identity="INTEGER PRIMARY KEY AUTOINCREMENT",
    now="TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP",
    lock="",
)


def _quoted(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,50}", name):
        raise OptionError(f"{name!r} is no name of a schema or table: letters, digits and _ only")
    return f'"{name}"'


class Tables:
    """The names of the tables.

    :param schema: the schema of a Postgres database; by default the first of the search path
    :param table: the beginning of the names
    """

    def __init__(self, schema: str | None, table: str) -> None:
        prefix = "" if schema is None else f"{_quoted(schema)}."
        self.readers, self.blocks, self.letters, self.migrations = (
            prefix + _quoted(f"{table}_{suffix}")
            for suffix in ("readers", "blocks", "dead_letters", "migrations")
        )


def _migrations_of(tables: Tables, flavour: Flavour) -> list[list[str]]:
    """The statements that create or change the tables, for each version. A version that was released never changes."""
    integer = flavour.integer
    return [
        [
            f"""CREATE TABLE {tables.readers} (
  name     text NOT NULL,
  chain    {integer} NOT NULL,
  position text NOT NULL,
  PRIMARY KEY (name, chain)
)""",
            f"""CREATE TABLE {tables.blocks} (
  name   text NOT NULL,
  chain  {integer} NOT NULL,
  number {integer} NOT NULL,
  data   text NOT NULL,
  PRIMARY KEY (name, chain, number)
)""",
            f"""CREATE TABLE {tables.letters} (
  id     {flavour.identity},
  name   text NOT NULL,
  chain  {integer} NOT NULL,
  kind   text NOT NULL,
  number {integer} NOT NULL,
  hash   text NOT NULL,
  error  text NOT NULL,
  data   text NOT NULL,
  at     {flavour.now}
)""",
        ],
    ]


def _migration_table(tables: Tables, flavour: Flavour) -> str:
    return f"CREATE TABLE IF NOT EXISTS {tables.migrations} (version {flavour.integer} PRIMARY KEY)"


def ddl_of(tables: Tables, flavour: Flavour) -> str:
    """All statements. A user without the right to create tables needs them to be run by another one."""
    statements = [_migration_table(tables, flavour)]
    for i, migration in enumerate(_migrations_of(tables, flavour)):
        statements += [*migration, f"INSERT INTO {tables.migrations} (version) VALUES ({i + 1})"]
    return ";\n".join(statements) + ";\n"


class SqlCheckpoint(Generic[Tx]):
    """A checkpoint in the tables of a database."""

    at_least_once = False

    def __init__(self, dialect: Dialect[Tx], tables: Tables, flavour: Flavour) -> None:
        self._dialect = dialect
        self._tables = tables
        self._flavour = flavour
        self._migrating = threading.Lock()
        self._is_migrated = False
        self._local = threading.local()

    def _version_of(self, tx: Tx) -> int:
        rows = self._dialect.query(tx, f"SELECT max(version) AS version FROM {self._tables.migrations}")
        return int(rows[0][0] or 0)

    def _migrate(self) -> None:
        dialect, tables, flavour = self._dialect, self._tables, self._flavour
        steps = _migrations_of(tables, flavour)
        # A user without the right to create tables needs none where they exist. (A failed query ends a transaction of Postgres.)
        try:
            with dialect.transaction() as tx:
                found = self._version_of(tx)
        except Exception as error:
            if not re.search("no such table|does not exist", str(error), re.IGNORECASE):
                raise
            found = 0
        if found == len(steps):
            return
        with dialect.transaction() as tx:
            dialect.query(tx, _migration_table(tables, flavour))
            # Two processes may begin at the same time.
            if flavour.lock:
                dialect.query(tx, f"LOCK TABLE {tables.migrations} IN EXCLUSIVE MODE")
            version = self._version_of(tx)
            if version > len(steps):
                raise OptionError(
                    f"the tables have version {version}, and this library knows {len(steps)}: install a later one"
                )
            for i, statements in enumerate(steps[version:], version):
                for statement in statements:
                    dialect.query(tx, statement)
                dialect.query(tx, f"INSERT INTO {tables.migrations} (version) VALUES (?)", (i + 1,))

    def prepare(self) -> None:
        """Creates the tables, or brings them to this version."""
        with self._migrating:
            while not self._is_migrated:
                try:
                    self._migrate()
                except Exception as error:
                    # Another process has created them meanwhile.
                    if re.search("already exists|duplicate key", str(error), re.IGNORECASE):
                        continue
                    raise
                self._is_migrated = True

    @property
    def _open(self) -> Tx | None:
        """The connection of this thread's open transaction."""
        return getattr(self._local, "open", None)

    @property
    def in_transaction(self) -> bool:
        return self._open is not None

    @property
    def has_open_writes(self) -> bool:
        return False

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        if not self._is_migrated:
            self.prepare()
        outer = self._open
        if outer is not None:
            with self._part_of(outer):
                yield outer
            return
        with self._dialect.transaction() as tx:
            self._local.open = tx
            try:
                yield tx
            finally:
                self._local.open = None

    @contextmanager
    def _part_of(self, tx: Tx) -> Iterator[None]:
        query = self._dialect.query
        query(tx, "SAVEPOINT event_ingestor")
        try:
            yield
        except BaseException:
            query(tx, "ROLLBACK TO SAVEPOINT event_ingestor")
            query(tx, "RELEASE SAVEPOINT event_ingestor")
            raise
        query(tx, "RELEASE SAVEPOINT event_ingestor")

    def load(self, tx: Tx, reader: ReaderId) -> Position | None:
        select = f"SELECT position FROM {self._tables.readers} WHERE name = ? AND chain = ?{self._flavour.lock}"
        rows = self._dialect.query(tx, select, reader)
        return position_of(rows[0][0]) if rows else None

    def blocks(self, tx: Tx, reader: ReaderId) -> Sequence[PackedBlock]:
        select = f"SELECT number, data FROM {self._tables.blocks} WHERE name = ? AND chain = ? ORDER BY number"
        return [PackedBlock(number, data) for number, data in self._dialect.query(tx, select, reader)]

    def save(self, tx: Tx, reader: ReaderId, save: Save) -> None:
        query, tables = self._dialect.query, self._tables
        query(
            tx,
            f"INSERT INTO {tables.readers} (name, chain, position) VALUES (?, ?, ?) "
            "ON CONFLICT (name, chain) DO UPDATE SET position = excluded.position",
            (*reader, position_text(save.position)),
        )
        for number in save.remove:
            delete = f"DELETE FROM {tables.blocks} WHERE name = ? AND chain = ? AND number = ?"
            query(tx, delete, (*reader, number))
        for block in save.put:
            insert = f"INSERT INTO {tables.blocks} (name, chain, number, data) VALUES (?, ?, ?, ?)"
            query(tx, insert, (*reader, block.number, block.data))
