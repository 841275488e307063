"""A checkpoint in Postgres: TEST_POSTGRES is the URL of a database."""

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from conftest import Server
from stream import Stream, hash_of
from test_follow import code_of, name_of, start, until

from event_ingestor import Change, postgres, postgres_ddl

URL = os.environ.get("TEST_POSTGRES", "")

pytestmark = pytest.mark.skipif(URL == "", reason="set TEST_POSTGRES to the URL of a database")


@dataclass
class Database:
    admin: psycopg.Connection[Any]
    table: str

    def write(self, tx: Any, block: Change[Any]) -> None:
        """A block that is applied twice, or retracted without being there, fails."""
        for log in block.logs:
            if block.type == "apply":
                tx.execute(f"INSERT INTO {self.table}_logs VALUES (%s)", [log.key])
            else:
                assert tx.execute(f"DELETE FROM {self.table}_logs WHERE key = %s", [log.key]).rowcount == 1

    def rows(self) -> list[str]:
        return [key for (key,) in self.admin.execute(f"SELECT key FROM {self.table}_logs ORDER BY key").fetchall()]

    def beat(self) -> int:
        (text,) = self.admin.execute(f"SELECT position FROM {self.table}_readers").fetchall()[0]
        beat: int = json.loads(text)["beat"]
        return beat


@pytest.fixture
def database() -> Iterator[Database]:
    with psycopg.connect(URL, autocommit=True) as admin:
        table = f"t{time.time_ns()}"
        admin.execute(f"CREATE TABLE {table}_logs (key text PRIMARY KEY)")
        admin.execute(postgres_ddl(table=table).encode())
        yield Database(admin, table)


def keys(*names: str) -> list[str]:
    return sorted(f"1:{hash_of(name)}:{index}" for name in names for index in (0, 1))


def test_stores_what_is_written_and_the_position_together(server: Server, database: Database) -> None:
    stream = Stream(server)
    stream.write("1a", "2a", "3a")
    seen = []
    # By a conninfo, and by a factory whose connections do not commit by themselves.
    for count, connect in ((3, URL), (8, lambda: psycopg.connect(URL))):
        checkpoint = postgres(connect, table=database.table)
        changes = start(server.url, checkpoint=checkpoint, lease=0.3)
        for block in changes:
            seen.append(name_of(block))
            if block.number == 2:
                with pytest.raises(ZeroDivisionError), block.transaction() as tx:
                    tx.execute(f"INSERT INTO {database.table}_logs VALUES ('lost')")
                    raise ZeroDivisionError
                # Heartbeats go on meanwhile.
                beat = database.beat()
                until(lambda beat=beat: database.beat() > beat)
            with block.transaction() as tx:
                database.write(tx, block)
            if len(seen) == count:
                break
        changes.close()
        checkpoint.close()
        if count == 3:
            stream.write("-3a", "-2a", "2b", "3b", "4b")
    assert seen == ["+1", "+2", "+3", "-3", "-2", "+2", "+3", "+4"]
    assert database.rows() == keys("1a", "2b", "3b", "4b")


def test_goes_on_after_a_connection_that_the_server_has_ended(server: Server, database: Database) -> None:
    Stream(server).write("1a")
    checkpoint = postgres(URL, table=database.table)
    changes = start(server.url, checkpoint=checkpoint)
    block = next(changes)
    with pytest.raises(psycopg.OperationalError), block.transaction() as tx:
        database.write(tx, block)
        database.admin.execute("SELECT pg_terminate_backend(%s)", [tx.info.backend_pid])
        tx.execute("SELECT 1")
    with block.transaction() as tx:
        database.write(tx, block)
    changes.close()
    checkpoint.close()
    assert database.rows() == keys("1a")


def test_commits_several_blocks_in_one_transaction(server: Server, database: Database) -> None:
    stream = Stream(server)
    stream.write("1a", "2a", "3a", "4a", "5a")
    checkpoint = postgres(URL, table=database.table)
    changes = start(server.url, checkpoint=checkpoint, lease=0.3)
    # By a connection of the caller.
    with psycopg.connect(URL) as own:
        for _ in range(2):
            block = next(changes)
            database.write(own, block)
            block.commit(own)
    block = next(changes)
    # By one of the checkpoint: the reader's own transactions are parts of it.
    with pytest.raises(ZeroDivisionError), checkpoint.transaction() as tx:
        for _ in range(2):
            database.write(tx, block)
            block.commit()
            block = next(changes)
        raise ZeroDivisionError
    assert code_of(block.commit).code == "ROLLED_BACK"
    assert database.rows() == keys("1a", "2a")
    changes.close()
    changes = start(server.url, checkpoint=checkpoint)
    block = next(changes)
    with checkpoint.transaction() as tx:
        for number in (3, 4, 5):
            assert block.number == number
            database.write(tx, block)
            block.commit(tx)
            if number < 5:
                block = next(changes)
    changes.close()
    checkpoint.close()
    assert database.rows() == keys("1a", "2a", "3a", "4a", "5a")


@pytest.mark.parametrize("connection", ["of the checkpoint", "of the caller"])
def test_refuses_a_repeated_transaction_whose_commit_lost_its_reply(
    connection: str, server: Server, database: Database
) -> None:
    Stream(server).write("1a", "2a")
    checkpoint = postgres(URL, table=database.table)
    changes = start(server.url, checkpoint=checkpoint)
    block = next(changes)
    with psycopg.connect(URL, autocommit=True) as own:

        def run() -> None:
            with checkpoint.transaction() if connection == "of the checkpoint" else own.transaction() as tx:
                by = own if connection == "of the caller" else tx
                # Nothing makes it unique.
                by.execute(f"INSERT INTO {database.table}_logs VALUES (gen_random_uuid())".encode())
                block.commit(by)

        # The caller has not seen that this one is committed.
        run()
        assert code_of(run).code == "COMMITTED"
        assert len(database.rows()) == 1
    next(changes).commit()
    changes.close()
    again = start(server.url, checkpoint=checkpoint, stop=threading.Event())
    threading.Timer(0.5, again.gi_frame.f_locals["options"].stop.set).start()
    assert list(again) == []
    checkpoint.close()


def test_ends_while_a_transaction_of_the_caller_is_open(server: Server, database: Database) -> None:
    Stream(server).write("1a", "2a")
    checkpoint = postgres(URL, table=database.table)
    with pytest.raises(ZeroDivisionError), psycopg.connect(URL) as own:
        # The iteration ends before the transaction does.
        own.execute("SET LOCAL statement_timeout = 20000")
        for block in start(server.url, checkpoint=checkpoint, lease=0.3):
            database.write(own, block)
            block.commit(own)
            if block.number == 2:
                begun = time.monotonic()
                raise ZeroDivisionError
    assert time.monotonic() - begun < 5
    assert database.rows() == []
    changes = start(server.url, checkpoint=checkpoint, lease=0.3)
    for block in changes:
        with block.transaction() as tx:
            database.write(tx, block)
        if block.number == 2:
            break
    changes.close()
    checkpoint.close()
    assert database.rows() == keys("1a", "2a")


def test_refuses_tables_of_a_later_release(server: Server, database: Database) -> None:
    Stream(server).write("1a")
    database.admin.execute(f"INSERT INTO {database.table}_migrations VALUES (99)")
    error = code_of(lambda: next(start(server.url, checkpoint=postgres(URL, table=database.table))))
    assert error.code == "OPTION" and "version 99" in str(error)
