"""What a commit stores, what it refuses, and which position is published."""

import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from stream import Stream, hash_of
from test_streams import UntilQuiet, fail, options_of

from event_ingestor import Change, Checkpoint, ConsumerError, Progress, ReaderId, Save, at_least_once, memory, sqlite
from event_ingestor.changes import follow_from
from event_ingestor.source import Report

Changes = Generator[Change[Any], None, None]

OTHER = "0x" + "bb" * 20
"""A contract that no reader of these tests asks for."""


class Source(UntilQuiet):
    """Records what is published."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(url, stop)
        self.reported: list[str] = []

    def report(self, reader: str, report: Report) -> None:
        self.reported.append(report.id)
        super().report(reader, report)


def start(server: Server, checkpoint: Checkpoint[Any], **options: Any) -> tuple[Source, Changes]:
    """An iteration that ends when there is nothing more to deliver."""
    stop = threading.Event()
    source = Source(server.url, stop)
    asked = {"addresses": ["0x" + "aa" * 20], "lease": 0.3, "on_warning": fail, **options}
    return source, follow_from(lambda _: source, options_of(checkpoint=checkpoint, stop=stop, **asked))


def name_of(block: Change[Any]) -> str:
    return f"{'+' if block.type == 'apply' else '-'}{bytes.fromhex(block.hash[2:]).lstrip(bytes(1)).decode()}"


def again(server: Server, checkpoint: Checkpoint[Any]) -> list[str]:
    """What the next iteration delivers and commits."""
    seen = []
    _, changes = start(server, checkpoint)
    for block in changes:
        seen.append(name_of(block))
        block.commit()
    return seen


def code_of(run: Callable[[], Any]) -> str:
    with pytest.raises(ConsumerError) as caught:
        run()
    return caught.value.code


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A position is published, and saved at rest, without a second between."""
    monkeypatch.setattr("event_ingestor.consumer._INTERVAL", 0.0)


@pytest.fixture
def stream(server: Server) -> Stream:
    return Stream(server)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint[Any]]:
    checkpoint = sqlite(tmp_path / "a.db")
    with checkpoint.transaction() as tx:
        tx.execute("CREATE TABLE names (name TEXT PRIMARY KEY)")
    yield checkpoint
    checkpoint.close()


class LostReply(Exception):
    """A transaction was committed, and its reply was lost."""


def lossy(checkpoint: Any) -> threading.Event:
    """Loses the reply of the next transaction when it is set."""
    transaction, lose = checkpoint.transaction, threading.Event()

    @contextmanager
    def losing() -> Iterator[Any]:
        with transaction() as tx:
            yield tx
        # Those inside of it have no reply of their own.
        if lose.is_set() and not checkpoint.in_transaction:
            lose.clear()
            raise LostReply

    checkpoint.transaction = losing
    return lose


def write(tx: sqlite3.Connection, block: Change[Any]) -> None:
    tx.execute("INSERT INTO names VALUES (?)", [name_of(block)])


def names(checkpoint: Checkpoint[Any]) -> list[str]:
    with checkpoint.transaction() as tx:
        return [name for (name,) in tx.execute("SELECT name FROM names ORDER BY name")]


def test_does_not_store_a_position_beyond_a_change_whose_transaction_was_rolled_back(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a", "3a", "4a")
    _, changes = start(server, checkpoint)
    with checkpoint.transaction() as tx:
        write(tx, block := next(changes))
        block.commit(tx)
    block = next(changes)
    with pytest.raises(ZeroDivisionError), checkpoint.transaction() as tx:
        write(tx, block)
        block.commit(tx)
        raise ZeroDivisionError
    third = next(changes)
    with checkpoint.transaction() as tx:
        assert code_of(lambda: third.commit(tx)) == "ROLLED_BACK"
    assert code_of(third.commit) == "ROLLED_BACK"
    assert code_of(lambda: third.transaction().__enter__()) == "ROLLED_BACK"
    changes.close()
    assert names(checkpoint) == ["+1a"]
    assert again(server, checkpoint) == ["+2a", "+3a", "+4a"]


def test_does_not_store_a_position_beyond_a_change_whose_block_raised(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a")
    _, changes = start(server, checkpoint)
    block = next(changes)
    with pytest.raises(ZeroDivisionError), block.transaction():
        raise ZeroDivisionError
    second = next(changes)
    assert code_of(lambda: second.transaction().__enter__()) == "ROLLED_BACK"
    # To go on without the writes of the first one is a decision of the caller.
    block.commit()
    with second.transaction() as tx:
        write(tx, second)
    changes.close()
    assert (names(checkpoint), again(server, checkpoint)) == (["+2a"], [])


def test_stores_a_change_whose_transaction_is_repeated(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a", "3a")
    _, changes = start(server, checkpoint)
    for block in changes:
        # More often than states are remembered.
        for attempt in range(151):
            try:
                with block.transaction() if block.number == 1 else checkpoint.transaction() as tx:
                    write(tx, block)
                    block.commit(tx)
                    if attempt < 150:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                continue
    assert (names(checkpoint), again(server, checkpoint)) == (["+1a", "+2a", "+3a"], [])


def test_commits_several_changes_in_one_transaction_of_the_checkpoint(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a")
    # The position is saved at rest when a block without logs that match was read.
    stream.write("3a", contract=OTHER)
    for is_rolled_back in (True, False):
        _, changes = start(server, checkpoint)
        block = next(changes)
        try:
            with checkpoint.transaction() as tx:
                write(tx, block)
                block.commit(tx)
                for block in changes:
                    write(tx, block)
                    block.commit(tx)
                if is_rolled_back:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert names(checkpoint) == []
    assert (names(checkpoint), again(server, checkpoint)) == (["+1a", "+2a"], [])


def test_notices_when_more_changes_were_rolled_back_than_it_remembers(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write(*(f"{number}a" for number in range(1, 151)))
    _, changes = start(server, checkpoint)
    block = next(changes)
    with pytest.raises(ZeroDivisionError), checkpoint.transaction() as tx:
        for _ in range(148):
            block.commit(tx)
            block = next(changes)
        raise ZeroDivisionError
    assert code_of(next(changes).commit) == "ROLLED_BACK"
    changes.close()
    assert len(again(server, checkpoint)) == 150


def test_keeps_the_later_position_when_an_earlier_change_is_committed_after_it(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a", "3a")
    _, changes = start(server, checkpoint)
    first, second = next(changes), next(changes)
    second.commit()
    first.commit()
    with pytest.raises(ConsumerError, match="committed already"), first.transaction():
        pass
    changes.close()
    assert again(server, checkpoint) == ["+3a"]


@pytest.mark.parametrize("form", ["commit", "commit in a transaction", "commit of a transaction", "transaction"])
def test_refuses_a_repeated_transaction_whose_commit_lost_its_reply(
    form: str, server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a")
    lose = lossy(checkpoint)
    # No heartbeat loses its reply in place of the commit.
    _, changes = start(server, checkpoint, lease=100.0)
    block = next(changes)

    def run() -> None:
        if form == "transaction":
            with block.transaction() as tx:
                tx.execute("INSERT INTO names VALUES (hex(randomblob(8)))")
        elif form == "commit":
            block.commit()
        else:
            with checkpoint.transaction() as tx:
                tx.execute("INSERT INTO names VALUES (hex(randomblob(8)))")
                block.commit(None if form == "commit in a transaction" else tx)

    lose.set()
    with pytest.raises(LostReply):
        run()
    if form == "commit":
        run()
    else:
        assert code_of(run) == "COMMITTED"
    next(changes).commit()
    changes.close()
    assert len(names(checkpoint)) == (form != "commit")
    assert again(server, checkpoint) == []


def test_refuses_a_repeated_transaction_of_the_caller_that_included_later_changes(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a", "3a")
    _, changes = start(server, checkpoint)
    first, second = next(changes), next(changes)
    with checkpoint.transaction() as tx:
        for block in (first, second):
            write(tx, block)
            block.commit(tx)
    third = next(changes)
    # Also when it is known that they are stored.
    for commit in (lambda: None, third.commit):
        commit()
        for block in (first, second):
            with checkpoint.transaction() as tx:
                assert code_of(lambda block=block, tx=tx: block.commit(tx)) == "COMMITTED"
    changes.close()
    assert (names(checkpoint), again(server, checkpoint)) == (["+1a", "+2a"], [])


def test_refuses_a_repeated_commit_of_what_a_connection_has_written_in_an_open_transaction(
    server: Server, stream: Stream
) -> None:
    stream.write("1a", "2a")
    own = sqlite3.connect(":memory:")
    own.execute("CREATE TABLE names (name TEXT)")
    checkpoint = sqlite(own)
    _, changes = start(server, checkpoint)
    block = next(changes)
    write(own, block)
    block.commit()
    # Nothing is written.
    block.commit()
    write(own, block)
    assert code_of(block.commit) == "COMMITTED"
    changes.close()
    assert (names(checkpoint), again(server, checkpoint)) == (["+1a"], ["+2a"])
    own.close()


def test_leaves_an_open_transaction_of_the_caller_open(server: Server, stream: Stream, tmp_path: Path) -> None:
    stream.write("1a", "2a")
    for number, path in enumerate((":memory:", tmp_path / "a.db")):
        own = sqlite3.connect(path)
        own.execute("CREATE TABLE names (name TEXT)")
        checkpoint = sqlite(own)
        asked = {"name": f"reader-{number}", "lease": 0.3}
        _, changes = start(server, checkpoint, **asked)
        write(own, block := next(changes))
        # An error of the caller ends the iteration in the middle of a block.
        changes.close()
        assert own.in_transaction
        _, changes = start(server, checkpoint, **asked)
        assert code_of(lambda changes=changes: next(changes)) == "OPTION"
        own.rollback()
        _, changes = start(server, checkpoint, **asked)
        # The position is not saved at rest.
        write(own, block := next(changes))
        block.commit(own)
        stream.write(f"{number + 3}a", contract=OTHER)
        for block in changes:
            write(own, block)
            block.commit(own)
        assert own.in_transaction
        own.rollback()
        assert names(checkpoint) == []
        _, changes = start(server, checkpoint, **asked)
        for block in changes:
            write(own, block)
            block.commit()
        assert names(checkpoint) == ["+1a", "+2a"]
        own.close()


def test_does_not_pass_over_a_commit_that_failed(
    server: Server, stream: Stream, checkpoint: Any
) -> None:
    stream.write("1a", "2a")
    save, is_failing = checkpoint.save, threading.Event()

    def failing(tx: Any, reader: ReaderId, save_: Save) -> None:
        if is_failing.is_set():
            raise OSError("the disk")
        save(tx, reader, save_)

    checkpoint.save = failing
    _, changes = start(server, checkpoint, lease=100.0)
    first = next(changes)
    is_failing.set()
    with pytest.raises(OSError, match="the disk"):
        first.commit()
    is_failing.clear()
    second = next(changes)
    assert code_of(second.commit) == "ROLLED_BACK"
    first.commit()
    second.commit()
    changes.close()
    assert again(server, checkpoint) == []


def test_does_not_save_at_rest_what_was_rolled_back(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a")
    _, changes = start(server, checkpoint)
    block = next(changes)
    with pytest.raises(ZeroDivisionError), checkpoint.transaction() as tx:
        block.commit(tx)
        raise ZeroDivisionError
    stream.write("2a", contract=OTHER)
    assert list(changes) == []
    assert again(server, checkpoint) == ["+1a"]


def test_saves_nothing_at_rest_while_a_connection_of_the_caller_has_a_transaction_open(
    server: Server, stream: Stream, tmp_path: Path
) -> None:
    stream.write("1a")
    checkpoint = sqlite(tmp_path / "a.db")

    def progressed(progress: Progress) -> None:
        source.waited = 0
        if progress.through == 2:
            stream.write("3a")

    source, changes = start(server, checkpoint, on_progress=progressed)
    block = next(changes)
    own = sqlite3.connect(tmp_path / "a.db")
    own.execute("CREATE TABLE names (name TEXT PRIMARY KEY)")
    write(own, block)
    block.commit(own)
    stream.write("2a", contract=OTHER)
    # It would wait for the end of the transaction.
    assert name_of(block := next(changes)) == "+3a"
    write(own, block)
    block.commit(own)
    own.commit()
    own.close()
    assert list(changes) == []
    assert again(server, checkpoint) == []
    checkpoint.close()


def test_repeats_a_save_at_rest_that_failed(server: Server, stream: Stream, tmp_path: Path) -> None:
    stream.write("1a")
    checkpoint: Any = sqlite(tmp_path / "a.db")
    save, failures, warnings = checkpoint.save, iter([True]), list[Exception]()

    def failing(tx: Any, reader: ReaderId, save_: Save) -> None:
        save(tx, reader, save_)
        if save_.position.block == 2 and next(failures, False):
            raise OSError("the disk")

    checkpoint.save = failing
    # No heartbeat saves meanwhile.
    _, changes = start(server, checkpoint, on_warning=warnings.append, lease=100.0)
    next(changes).commit()
    stream.write("2a", contract=OTHER)
    assert list(changes) == []
    with checkpoint.transaction() as tx:
        assert checkpoint.load(tx, ReaderId("reader", 1)).block == 2
    assert [str(warning) for warning in warnings] == ["the disk"]
    checkpoint.close()


def test_ends_a_commit_when_another_process_reads(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a")
    _, changes = start(server, checkpoint)
    block = next(changes)
    reader = ReaderId("reader", 1)
    with checkpoint.transaction() as tx:
        position = checkpoint.load(tx, reader)
        assert position is not None
        taken = {name: getattr(position, name) for name in position.__slots__} | {"owner": "another"}
        checkpoint.save(tx, reader, Save(type(position)(**taken), (), ()))
    assert code_of(block.commit) == "TAKEN_OVER"
    changes.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_retracts_what_was_handled_and_not_committed_if_it_has_gone(
    kind: str, server: Server, stream: Stream, tmp_path: Path
) -> None:
    stream.write("1a", "2a")
    checkpoint = memory() if kind == "memory" else at_least_once(sqlite(tmp_path / "a.db"))
    _, changes = start(server, checkpoint)
    first, _ = next(changes), next(changes)
    # Commits the first one, and not the second one, which was delivered before.
    first.commit()
    changes.close()
    stream.write("-2a", "2b")
    assert again(server, checkpoint) == ["-2a", "+2b"]
    checkpoint.close()


def test_delivers_no_block_at_least_once_while_another_of_its_number_is_uncommitted(
    server: Server, stream: Stream, tmp_path: Path
) -> None:
    stream.write("1a", "2a")
    checkpoint = at_least_once(sqlite(tmp_path / "a.db"))
    assert again(server, checkpoint) == ["+1a", "+2a"]
    stream.write("-2a", "2b", "3b")
    _, changes = start(server, checkpoint)
    assert name_of(next(changes)) == "-2a"
    # Of 2a and 2b, it could note one only.
    assert code_of(lambda: next(changes)) == "UNCOMMITTED"
    assert again(server, checkpoint) == ["-2a", "+2b", "+3b"]
    checkpoint.close()


def test_marks_a_block_once_that_was_replaced_and_is_canonical_again(
    server: Server, stream: Stream
) -> None:
    stream.write("1a", "2a")
    checkpoint = memory()
    source, changes = start(server, checkpoint)
    first, _ = next(changes), next(changes)
    stream.write("-2a")
    assert name_of(next(changes)) == "-2a"
    stream.write("2a", "3a")
    source.waited = 0
    assert name_of(next(changes)) == "+2a"
    first.commit()
    changes.close()
    assert again(server, checkpoint) == ["-2a", "+2a", "+3a"]


def test_delivers_nothing_after_a_rolled_back_change_at_least_once(
    server: Server, stream: Stream, tmp_path: Path
) -> None:
    stream.write("1a", "2a")
    checkpoint = at_least_once(sqlite(tmp_path / "a.db"))
    _, changes = start(server, checkpoint)
    block = next(changes)
    with pytest.raises(ZeroDivisionError), checkpoint.transaction() as tx:
        block.commit(tx)
        raise ZeroDivisionError
    assert code_of(lambda: next(changes)) == "ROLLED_BACK"
    _, changes = start(server, checkpoint)
    block = next(changes)
    with pytest.raises(ZeroDivisionError), checkpoint.transaction() as tx:
        block.commit(tx)
        raise ZeroDivisionError
    # It may be repeated.
    with checkpoint.transaction() as tx:
        block.commit(tx)
    assert name_of(next(changes)) == "+2a"
    changes.close()
    assert again(server, checkpoint) == ["+2a"]
    checkpoint.close()


def test_publishes_the_position_that_is_stored(server: Server, stream: Stream, checkpoint: Checkpoint[Any]) -> None:
    stream.write("1a", "2a", "3a")
    source, changes = start(server, checkpoint)
    next(changes).commit()
    # Delivered, and not committed.
    assert [name_of(block) for block in changes] == ["+2a", "+3a"]
    assert set(source.reported) == {"0-0", "2-0"}


def test_publishes_a_commit_in_a_transaction_of_the_caller_when_that_has_ended(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a")
    source, changes = start(server, checkpoint)
    block = next(changes)
    with pytest.raises(ZeroDivisionError), checkpoint.transaction() as tx:
        block.commit(tx)
        for block in changes:
            block.commit(tx)
        raise ZeroDivisionError
    assert set(source.reported) == {"0-0"}
    source, changes = start(server, checkpoint)
    with checkpoint.transaction() as tx:
        next(changes).commit(tx)
    changes.close()
    assert source.reported[-1] == "2-0"


def test_publishes_the_lower_position_after_a_set_back_until_its_retractions_are_committed(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a", final=1)
    restore = stream.save()
    stream.write("3a", "4a")
    assert len(again(server, checkpoint)) == 4
    restore()
    stream.write("3b", "4b")
    for commits, left in ((0, ["-4a", "-3a", "+3b", "+4b"]), (1, ["-4a", "-3a", "+3b", "+4b"]), (0, ["-3a", "+3b", "+4b"])):
        source, changes = start(server, checkpoint)
        seen = []
        for block in changes:
            seen.append(name_of(block))
            if len(seen) <= commits:
                block.commit()
        assert seen == left
        assert set(source.reported) == {"4-0"}
    source, changes = start(server, checkpoint)
    for block in changes:
        block.commit()
    assert source.reported[-1] == "8-0"
    assert hash_of("4b") == block.hash


def test_publishes_the_lower_position_after_a_set_back_also_when_a_commit_of_before_it_ends_then(
    server: Server, stream: Stream, checkpoint: Checkpoint[Any]
) -> None:
    stream.write("1a", "2a", final=1)
    restore = stream.save()
    stream.write("3a", "4a")
    source, changes = start(server, checkpoint)
    for _ in range(3):
        next(changes).commit()
    fourth = next(changes)
    restore()
    stream.write("3b")
    assert name_of(next(changes)) == "-4a"
    with checkpoint.transaction() as tx:
        fourth.commit(tx)
    changes.close()
    assert source.reported[-1] == "4-0"
