"""``follow`` on a real Redis."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import Server
from test_streams import fail
from stream import Stream, hash_of

import event_ingestor
from event_ingestor import (
    Change,
    Checkpoint,
    ConsumerError,
    Progress,
    ReaderId,
    TrimmedError,
    at_least_once,
    follow,
    memory,
    sqlite,
)

RIGHTS = "+xrange +xrevrange +xread +xlen +hgetall +hset +multi +exec +role +info +ping +select +client"


def start(source: Any, **options: Any) -> Generator[Change[Any], None, None]:
    defaults: dict[str, Any] = {
        "chain": 1,
        "name": "reader",
        "from_": "earliest",
        "finality": "latest",
        "checkpoint": memory(),
    }
    return follow(source, **{**defaults, **options})


def name_of(block: Change[Any]) -> str:
    return f"{'+' if block.type == 'apply' else '-'}{block.number}"


def take(changes: Generator[Change[Any], None, None], count: int) -> list[str]:
    """Commits so many changes, and ends the iteration."""
    seen = []
    for block in changes:
        block.commit()
        seen.append(name_of(block))
        if len(seen) == count:
            break
    changes.close()
    return seen


def code_of(run: Callable[[], Any]) -> ConsumerError:
    with pytest.raises(ConsumerError) as caught:
        run()
    return caught.value


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it does not become true"
        time.sleep(0.01)


class Follower(threading.Thread):
    """A consumer in a thread."""

    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.seen: list[str] = []
        self.error: Exception | None = None
        self.hold = threading.Event()
        self.hold.set()
        self._changes = start(source, stop=self.stop, **options)
        self.start()

    def run(self) -> None:
        try:
            for block in self._changes:
                self.hold.wait()
                block.commit()
                self.seen.append(name_of(block))
        except Exception as error:
            self.error = error

    def end(self) -> None:
        self.stop.set()
        self.join(10)
        assert not self.is_alive()


def test_applies_blocks_retracts_those_of_a_reorg_and_publishes_its_position(server: Server) -> None:
    stream = Stream(server)
    progress: list[Progress] = []
    server.client.config_resetstat()
    reader = Follower(server.url, on_progress=progress.append)
    # It begins before there is a journal.
    until(lambda: "cmdstat_hgetall" in server.client.info("commandstats"))
    stream.write("1a", "2a", "3a")
    until(lambda: len(reader.seen) == 3)
    stream.write("-3a", "-2a", "2b", "3b", "4b")
    until(lambda: len(reader.seen) == 8)
    reader.end()
    assert reader.error is None
    assert reader.seen == ["+1", "+2", "+3", "-3", "-2", "+2", "+3", "+4"]
    assert progress[-1] == Progress(chain=1, through=4, finalized=0, lag=0)
    report = json.loads(server.client.hget("{events:1}:readers", "reader"))
    assert list(report) == ["id", "offset", "block", "finality", "seen"]
    assert (report["id"], report["offset"]) == ("16-0", 16)


def test_is_woken_up_by_an_entry(server: Server) -> None:
    stream = Stream(server)
    stream.write("1a")
    reader = Follower(server.url)
    until(lambda: reader.seen == ["+1"])
    until(lambda: server.client.info("clients")["blocked_clients"] == 1)
    begun = time.monotonic()
    stream.write("2a")
    until(lambda: reader.seen == ["+1", "+2"])
    # Without an entry, it reads the head again after a second.
    assert time.monotonic() - begun < 0.7
    reader.end()


@pytest.mark.parametrize("decode", [True, False])
def test_reads_by_a_client_or_a_factory(server: Server, decode: bool) -> None:
    Stream(server).write("1a", "2a")
    client = redis.Redis(port=server.port, decode_responses=decode)
    assert take(start(client), 2) == ["+1", "+2"]
    assert take(start(lambda: redis.Redis(port=server.port, decode_responses=decode)), 2) == ["+1", "+2"]
    assert client.ping()
    client.close()


def test_delivers_again_what_was_not_committed(server: Server, tmp_path: Path) -> None:
    Stream(server).write("1a", "2a", "3a")
    for checkpoint in (memory(), sqlite(tmp_path / "a.db"), at_least_once(sqlite(tmp_path / "b.db"))):
        changes = start(server.url, checkpoint=checkpoint)
        next(changes).commit()
        assert name_of(next(changes)) == "+2"
        changes.close()
        assert take(start(server.url, checkpoint=checkpoint), 2) == ["+2", "+3"]
        checkpoint.close()


def test_commits_with_what_the_caller_writes(server: Server, tmp_path: Path) -> None:
    Stream(server).write("1a", "2a", "3a", "4a", "5a")
    own = sqlite3.connect(tmp_path / "own.db")
    own.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
    own.commit()
    for checkpoint in (sqlite(tmp_path / "own.db"), sqlite(own)):
        changes = start(server.url, checkpoint=checkpoint, name=type(checkpoint).__name__ + str(id(checkpoint)))
        own.execute("DELETE FROM numbers")
        own.commit()
        first, second = next(changes), None
        with first.transaction() as tx:
            tx.execute("INSERT INTO numbers VALUES (?)", (first.number,))
        second = next(changes)
        with pytest.raises(ZeroDivisionError), second.transaction() as tx:
            tx.execute("INSERT INTO numbers VALUES (?)", (second.number,))
            raise ZeroDivisionError
        assert own.execute("SELECT * FROM numbers").fetchall() == [(1,)]
        # Once more, with the caller's own transaction.
        with checkpoint.transaction() as tx:
            tx.execute("INSERT INTO numbers VALUES (?)", (second.number,))
            second.commit(tx)
        assert code_of(lambda second=second: second.transaction().__enter__()).code == "COMMITTED"
        third = next(changes)
        third.commit()
        # An earlier change does not move the position back.
        first.commit()
        changes.close()
        again = start(server.url, checkpoint=checkpoint, name=type(checkpoint).__name__ + str(id(checkpoint)))
        assert name_of(next(again)) == "+4"
        again.close()
        assert own.execute("SELECT * FROM numbers ORDER BY number").fetchall() == [(1,), (2,)]
        checkpoint.close()
    # What an open transaction of the caller's connection has written is committed by commit().
    changes = start(server.url, checkpoint=sqlite(own), name="joined")
    block = next(changes)
    own.execute("INSERT INTO numbers VALUES (99)")
    assert own.in_transaction
    block.commit()
    assert not own.in_transaction
    changes.close()
    assert sqlite3.connect(tmp_path / "own.db").execute("SELECT max(number) FROM numbers").fetchone() == (99,)
    own.close()


def test_refuses_a_commit_after_the_iteration(server: Server) -> None:
    Stream(server).write("1a")
    changes = start(server.url)
    block = next(changes)
    changes.close()
    assert code_of(block.commit).code == "CLOSED"
    assert code_of(lambda: block.transaction().__enter__()).code == "CLOSED"


def beat_of(checkpoint: Checkpoint[Any]) -> int:
    with checkpoint.transaction() as tx:
        position = checkpoint.load(tx, ReaderId("turns", 1))
    assert position is not None
    return position.beat


def test_a_second_process_stands_by_and_takes_over_after_release_and_after_the_lease(
    server: Server, tmp_path: Path
) -> None:
    stream = Stream(server)
    stream.write("1a")
    kinds: list[Callable[[], Checkpoint[Any]]] = [lambda: sqlite(tmp_path / "a.db")]
    shared = memory()
    kinds.append(lambda: shared)
    for kind in kinds:
        first = start(server.url, checkpoint=kind(), lease=0.6, name="turns")
        block = next(first)
        second = Follower(server.url, checkpoint=kind(), lease=0.6, name="turns")
        # It does not take over from one that is slow, and whose heartbeats go on for twice the lease.
        beat = beat_of(kind())
        until(lambda kind=kind, beat=beat: beat_of(kind()) >= beat + 6)
        assert second.seen == []
        block.commit()
        first.close()
        top = stream._blocks[-1]
        fresh = f"{int(top[:-1]) + 1}a"
        stream.write(fresh)
        until(lambda second=second, fresh=fresh: f"+{fresh[:-1]}" in second.seen)
        assert "+1" not in second.seen
        # The lease of one that has stopped without a word ends.
        second._changes.gi_frame.f_locals["consumer"]._heartbeats.stop()
        second.hold.clear()
        third = Follower(server.url, checkpoint=kind(), lease=0.6, name="turns")
        last = f"{int(fresh[:-1]) + 1}a"
        stream.write(last)
        until(lambda third=third, last=last: third.seen == [f"+{last[:-1]}"])
        second.hold.set()
        until(lambda second=second: second.error is not None)
        assert isinstance(second.error, ConsumerError) and second.error.code == "TAKEN_OVER"
        third.end()


def test_refuses_a_replica_and_a_user_without_rights_with_what_to_do(server: Server) -> None:
    Stream(server).write("1a")
    replica = Server("--replicaof", "127.0.0.1", str(server.port))
    try:
        assert code_of(lambda: next(start(replica.url))).code == "REPLICA"
    finally:
        replica.close()
    acl: Callable[..., Any] = server.client.execute_command
    acl("ACL", "SETUSER", "poor", "on", ">secret", "%R~events:1", "%R~{events:1}:head", *RIGHTS.split())
    try:
        url = f"redis://poor:secret@127.0.0.1:{server.port}"
        error = code_of(lambda: next(start(url)))
        assert error.code == "PERMISSION"
        assert "%RW~{events:1}:readers" in str(error)
        assert take(start(url, pinned=False), 1) == ["+1"]
        acl("ACL", "SETUSER", "poor", "%RW~{events:1}:readers", "-role")
        assert take(start(url), 1) == ["+1"]
        acl("ACL", "SETUSER", "poor", "-info")
        assert "neither ROLE nor INFO" in str(code_of(lambda: next(start(url))))
    finally:
        acl("ACL", "DELUSER", "poor")


def test_begins_at_a_block_or_now_and_reports_what_is_not_in_the_stream(server: Server) -> None:
    stream = Stream(server)
    stream.write(*(f"{number}a" for number in range(1, 21)), final=20)
    server.client.xtrim("events:1", minid="9-0", approximate=False)
    server.client.hset("{events:1}:head", "first_number", 5)
    for from_ in ("earliest", 4):
        error = code_of(lambda from_=from_: next(start(server.url, from_=from_)))
        assert isinstance(error, TrimmedError)
        assert (error.code, error.first_number) == ("TRIMMED", 5)
        assert "from_=5" in str(error)
    assert take(start(server.url, from_=5), 1) == ["+5"]
    server.client.hset("{events:1}:head", "version", 3)
    assert code_of(lambda: next(start(server.url, from_=5))).code == "VERSION"
    server.client.hset("{events:1}:head", "version", 2)
    now = Follower(server.url, from_="now", name="now")
    until(lambda: server.client.hexists("{events:1}:readers", "now"))
    stream.write("21a")
    until(lambda: now.seen == ["+21"])
    now.end()


def test_a_filter_that_has_changed_is_compared(server: Server) -> None:
    stream = Stream(server)
    stream.write("1a")
    asked = "0x" + "aa" * 20
    checkpoint = memory()
    assert take(start(server.url, checkpoint=checkpoint, addresses=[asked]), 1) == ["+1"]
    wider = f'ff00 [["{asked}","0x{"cc" * 20}"],[]]'
    server.client.hset("{events:1}:head", mapping={"filter": "ff00", "filter_content": wider})
    changed: list[Any] = []
    options = {"checkpoint": checkpoint, "addresses": [asked], "on_filter_changed": changed.append}
    stream._blocks.append("2a")
    with server.client.pipeline() as pipe:
        stream._entry(pipe, "2a", 0, False)
        pipe.hset("{events:1}:head", mapping={"number": 2, "hash": hash_of("2a"), "added": 3})
        pipe.execute()
    assert take(start(server.url, **options), 1) == ["+2"]
    assert [(change.before, change.after) for change in changed] == [("none", "ff00")]
    server.client.hset("{events:1}:head", mapping={"filter": "ee00", "filter_content": 'ee00 [["0xdd"],[]]'})
    assert code_of(lambda: next(start(server.url, **options))).code == "FILTER"


def test_survives_a_redis_that_restarts(own_server: Server) -> None:
    stream = Stream(own_server)
    stream.write("1a")
    warnings: list[Exception] = []
    reader = Follower(own_server.url, on_warning=warnings.append)
    until(lambda: reader.seen == ["+1"])
    own_server.kill()
    until(lambda: warnings)
    own_server.start()
    stream.write("2a")
    until(lambda: reader.seen == ["+1", "+2"])
    reader.end()


def test_reads_a_cluster() -> None:
    node = Server("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    try:
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: "cluster_state:ok" in str(node.client.execute_command("CLUSTER", "INFO")) or "ok" in str(
            node.client.cluster("INFO").get("cluster_state")
        ))
        Stream(node).write("1a", "2a")
        factory: Callable[[], Any] = lambda: redis.RedisCluster(host="127.0.0.1", port=node.port)  # noqa: E731
        assert take(start(factory, on_warning=fail), 2) == ["+1", "+2"]
    finally:
        node.close()


def test_the_program_of_the_readme_keeps_balances_through_a_reorg(server: Server, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    one, two = ("0x" + digit * 40 for digit in "12")
    args = json.dumps({"from": one, "to": two, "value": str(2**70)})
    stream = Stream(server, logs=1, chain=31337, event="Transfer(address,address,uint256)", args=args)
    stream.write("1a", "2a", "3a")
    # A log that could not be decoded.
    stream.write("4a", event="", args="null")

    def balances() -> list[tuple[str, str]]:
        with closing(sqlite3.connect(tmp_path / "balances.db", timeout=30)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'balances'").fetchall():
                return []
            return database.execute("SELECT address, balance FROM balances ORDER BY address").fetchall()

    def expected(blocks: int) -> list[tuple[str, str]]:
        return [(one, str(-blocks * 2**70)), (two, str(blocks * 2**70))]

    package = Path(event_ingestor.__file__).parents[1]
    environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(package)}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    try:
        until(lambda: balances() == expected(3))
        stream.write("-4a", "-3a", "-2a", "2b")
        until(lambda: balances() == expected(2))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
