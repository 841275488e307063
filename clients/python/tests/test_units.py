"""The parts that need no stream."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_streams import options_of

from event_ingestor import ConsumerError, Log, OptionError, ReaderId, follow, memory, sqlite
from event_ingestor import events as events_module
from event_ingestor.checkpoint import Save
from event_ingestor.entry import Entry, Head
from event_ingestor.errors import FilterError, TrimmedError
from event_ingestor.events import Decoder, assert_disjoint, parse_events, signature_of
from event_ingestor.filter import Asked, EventTopic, assert_included, assert_still_included
from event_ingestor.plan import View, plan
from event_ingestor.position import AppliedBlock, Position, State, pack, unpack
from event_ingestor.reader import ReaderOptions
from event_ingestor.reconcile import Reconciled, reconcile, standing_of
from event_ingestor.source import Snapshot, SourceUnavailable
from event_ingestor.sqlite_source import SqliteSource
from event_ingestor.testing import replay

TRANSFER = "Transfer(address indexed from, address indexed to, uint256 value)"
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

VALID: dict[str, Any] = {
    "source": "redis://127.0.0.1:1",
    "chain": 1,
    "name": "reader",
    "from_": "earliest",
    "finality": "latest",
    "checkpoint": memory(),
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": None}, "URL of Redis or sqlite"),
        ({"sqlite": "x.db"}, "URL of Redis or sqlite"),
        ({"chain": -1}, "chain: -1 is no id"),
        ({"chain": True}, "chain: True is no id"),
        ({"name": None}, "name: None"),
        ({"name": "a b"}, "name: 'a b'"),
        ({"from_": None}, 'from_: None: set "earliest"'),
        ({"from_": 1.5}, "from_: 1.5"),
        ({"finality": "safe"}, 'finality: \'safe\': set "latest"'),
        ({"finality": -1}, "finality: -1"),
        ({"addresses": ["0x12"]}, "addresses"),
        ({"addresses": "0x" + "11" * 20}, "addresses"),
        ({"checkpoint": None}, "checkpoint: set postgres"),
        ({"lease": "soon"}, "lease: 'soon'"),
        ({"events": []}, "no event"),
        ({"events": TRANSFER}, "set a list"),
        ({"events": ["Transfer"]}, "write it as Transfer"),
        ({"events": ["A(uint7 x)"]}, "the type uint7 cannot be decoded"),
        ({"events": ["A((uint8 a, b)"]}, "parenthesis"),
        ({"events": ["A(uint8 a b)"]}, "no parameter"),
        ({"events": [{"type": "event", "name": "A", "inputs": [], "anonymous": True}]}, "A is anonymous"),
        ({"events": ["A() anonymous"]}, "A is anonymous"),
        ({"events": ["A(uint256 indexed x, uint256 y)", "A(uint256 x, uint256 indexed y)"]}, "two events A"),
        ({"events": ["A(bool indexed a, bool indexed b, bool indexed c, bool indexed d)"]}, "more than 3"),
    ],
)
def test_refuses_options_before_it_begins(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as error:
        follow(**{**VALID, **options})
    assert message in str(error.value)
    assert error.value.code == "OPTION"


def test_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "eth_abi.abi", None)
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(OptionError, match=r"pip install 'event_ingestor\[decode\]'"):
        events_module.Decoder([TRANSFER])
    from event_ingestor import postgres

    with pytest.raises(OptionError, match=r"pip install 'event_ingestor\[postgres\]'"):
        postgres("postgres://")


ADDRESS = "0x" + "ab" * 20
TOPIC = "0x" + "01" * 32


@pytest.mark.parametrize(
    ("content", "is_named", "is_still_named", "is_all_still_there"),
    [
        ([[], []], True, True, True),
        ([[ADDRESS], [[TOPIC]]], True, True, False),
        ([[ADDRESS, "0x" + "cd" * 20], [[TOPIC, "0x" + "02" * 32]]], True, True, False),
        ([["0x" + "cd" * 20], []], False, False, False),
        ([[], [["0x" + "02" * 32]]], False, False, False),
        ([[], [None, [TOPIC]]], True, False, False),
    ],
)
def test_compares_the_filter_of_the_ingestor(
    content: object, is_named: bool, is_still_named: bool, is_all_still_there: bool
) -> None:
    text = json.dumps(content)
    named, unnamed = Asked(["0x" + "AB" * 20], [EventTopic(TOPIC, 3)]), Asked([], [])
    for check, asked, passes in (
        (assert_included, named, is_named),
        (assert_still_included, named, is_still_named),
        # What a reader does not name is whatever the ingestor stores, but a change may have taken some of it.
        (assert_included, unnamed, True),
        (assert_still_included, unnamed, is_all_still_there),
    ):
        if passes:
            check(1, text, asked)
        else:
            with pytest.raises(FilterError, match="the ingestor's filter"):
                check(1, text, asked)
    with pytest.raises(FilterError, match="on_filter_changed"):
        assert_still_included(1, None, named)


def test_does_not_read_a_replaced_file_with_the_log_of_the_file_before(tmp_path: Path) -> None:
    path, copy = tmp_path / "events.db", tmp_path / "copy.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE events (id INTEGER, chain_id INTEGER)")
    writer.execute("VACUUM INTO ?", [str(copy)])
    writer.execute("INSERT INTO events VALUES (1, 1)")
    source = SqliteSource(str(path), 1)

    def count() -> int:
        return int(source._run(lambda database: database.execute("SELECT count(*) FROM events").fetchone()[0]))

    assert count() == 1
    copy.rename(path)
    with pytest.raises(SourceUnavailable, match="write-ahead log beside it"):
        count()
    # As the ingestor does, which can change the mode only if no other connection has the file open.
    writer.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    writer = sqlite3.connect(path, timeout=0, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    assert count() == 0
    writer.execute("INSERT INTO events VALUES (1, 1)")
    assert count() == 1
    writer.close()
    source.close()


def log(topics: list[str], data: str) -> Log:
    return Log(1, 1, "0x01", "0x02", 0, 0, "0x03", tuple(topics), data, "1:0x01:0")


def word(value: int | str) -> str:
    return f"{value:064x}" if isinstance(value, int) else value.ljust(64, "0")


def test_parses_signatures_and_abi_items() -> None:
    texts = [
        TRANSFER,
        " event  Named ( string indexed key , string text,(uint8 a, bytes b)[] pairs ) ; ",
        "A(uint, int[2][] indexed, tuple(uint x)[3] t)",
        "None()",
    ]
    item = {
        "type": "event",
        "name": "B",
        "inputs": [{"name": "x", "type": "tuple[]", "components": [{"name": "y", "type": "address"}]}],
    }
    function = {"type": "function", "name": "f"}
    assert [signature_of(event) for event in parse_events([*texts, item, function])] == [
        "Transfer(address,address,uint256)",
        "Named(string,string,(uint8,bytes)[])",
        "A(uint256,int256[2][],(uint256)[3])",
        "None()",
        "B((address)[])",
    ]


def test_decodes_known_values() -> None:
    decoder = Decoder(
        [
            TRANSFER,
            "Named(string indexed key, string text, (uint8 a, bytes b)[] pairs)",
            "Mixed(bytes4 x, bool indexed y, int8, uint8 x, int8[2] z)",
        ]
    )
    transfer, named, mixed = decoder.topics
    assert transfer == EventTopic(TRANSFER_TOPIC, 3)
    a, b = "0x" + "11" * 20, "0x" + "22" * 20
    sender, receiver = ("0x" + "0" * 24 + address[2:] for address in (a, b))
    logs = [
        log([transfer.topic0, sender, receiver], "0x" + word(2**200)),
        log(
            [named.topic0, TOPIC],
            "0x"
            + word(64)
            + word(128)
            + word(4)
            + word("text".encode().hex())
            + word(1)
            + word(32)
            + word(1)
            + word(64)
            + word(2)
            + word("0102"),
        ),
        log([mixed.topic0, "0x" + word(1)], "0x" + word("01020304") + "f" * 64 + word(7) + word(1) + "f" * 63 + "e"),
        # No encodings: too short, a dirty address, no UTF-8, another number of topics.
        log([transfer.topic0, sender, receiver], "0x01"),
        log([transfer.topic0, TOPIC, receiver], "0x" + word(5)),
        log([named.topic0, TOPIC], "0x" + word(64) + word(128) + word(1) + word("ff") + word(0)),
        log([transfer.topic0, sender], "0x" + word(5)),
        log([], "0x"),
    ]
    assert [(event.name, event.args) for event in decoder.decode(logs)] == [
        ("Transfer", {"from": a, "to": b, "value": 2**200}),
        ("Named", {"key": TOPIC, "text": "text", "pairs": [{"a": 1, "b": "0x0102"}]}),
        ("Mixed", {"x": "0x01020304", "y": True, "arg2": -1, "x_2": 7, "z": [1, -2]}),
    ]


def test_refuses_data_whose_values_overlap() -> None:
    (event,) = parse_events(["A(string[] x)"])
    count = 50
    text = word(1000) + "61" * 1000 + "00" * 24
    data = word(32) + word(count) + word(32 * count) * count + text
    with pytest.raises(ValueError, match="overlap"):
        assert_disjoint(event.inputs, bytes.fromhex(data))
    decoder = Decoder(["A(string[] x)"])
    assert decoder.decode([log([decoder.topics[0].topic0], "0x" + data)]) == []


def entry(number: int, fork: str, index: int, removed: bool = False, **others: str) -> dict[str, str]:
    return {
        "chain_id": "1",
        "block_number": str(number),
        "block_hash": f"0x{fork}{number}",
        "tx_hash": "0x02",
        "log_index": str(index),
        "contract": "0x03",
        "topics": "[]",
        "data": "0x",
        "timestamp": "1",
        "tx_index": "0",
        "removed": "true" if removed else "false",
        **others,
    }


def test_replays_recorded_entries() -> None:
    entries = [
        entry(1, "a", 0, event="A(uint256)", args='{"x":"5"}'),
        entry(1, "a", 1),
        entry(2, "a", 0),
        entry(2, "a", 0, True),
        entry(2, "b", 0),
        entry(3, "b", 0),
    ]
    changes = list(replay(entries, final_number=2))
    assert [
        f"{change.type} {change.hash}:{len(change.logs)}{'!' if change.finalized else ''}" for change in changes
    ] == ["apply 0xa1:2!", "apply 0xa2:1", "undo 0xa2:1", "apply 0xb2:1!", "apply 0xb3:1"]
    first = changes[0].logs[0]
    assert (first.event, first.args) == ("A(uint256)", {"x": "5"})


def applied(number: int, fork: str, pending: bool = False) -> AppliedBlock:
    return AppliedBlock(1, number, f"0x{fork}{number}", 1, False, (), False, pending)


def head(number: int, fork: str, **others: Any) -> Head:
    defaults: dict[str, Any] = {
        "version": 2,
        "epoch": "one",
        "epoch_reason": "begun",
        "number": number,
        "hash": f"0x{fork}{number}",
        "part": 0,
        "final_number": -1,
        "start_number": 1,
        "first_number": 1,
        "filter": "none",
        "filter_content": None,
        "added": 0,
    }
    return Head(**{**defaults, **others})


def test_keeps_no_final_block_for_retraction_when_a_final_block_without_logs_that_match_follows() -> None:
    state = State(Position("1", "", "one", 1, 4, 5, "none", "", 0), (applied(5, "a"),))
    entries = [
        Entry(str(2 + i), entry(number, "a", 0, contract=contract))
        for i, (number, contract) in enumerate([(6, "0x04"), (7, "0x03")])
    ]
    wanted = ReaderOptions(1, "reader", Asked([], []), "latest", lambda log: log.contract == "0x03", True, None)
    view = View(entries, head(7, "a", final_number=6), True, float("inf"))
    (step,) = plan(state, view, wanted).steps
    assert (step.block.number, step.position.final) == (7, 6)
    assert [block.number for block in step.stack] == [7]


class Entries:
    """A source of which only the entries are read."""

    lowest = "0"

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    def compare(self, one: str, other: str) -> int:
        return int(one) - int(other)

    def read_back(self, from_: str, count: int) -> list[Entry]:
        return self._entries[::-1]


def reconciled(
    moves: list[tuple[int, str, bool]], stack: tuple[AppliedBlock, ...], pinned: bool = True, **position: Any
) -> Reconciled | None:
    """What follows from a stream that has these entries, from id 11 on, after ten that were trimmed; its first number is 6. By
    default, the store was set back.
    """
    entries = [Entry(str(11 + i), entry(number, fork, 0, removed)) for i, (number, fork, removed) in enumerate(moves)]
    defaults: dict[str, Any] = {"id": "10", "identity": "lost", "epoch": "one", "offset": 10}
    at = Position(final=3, block=5, filter="none", owner="", beat=0, **(defaults | position))
    top = head(6, "b", epoch="two", epoch_reason="lost", final_number=6, first_number=6, added=10 + len(entries))
    known = next((one for one in entries if one.id == at.id), None)
    snapshot = Snapshot(top, len(entries), entries[0].id, entries[-1].id, [known], [])
    source: Any = Entries(entries)
    return reconcile(source, 1, State(at, stack), top, snapshot, lambda _: True, pinned)


@pytest.mark.parametrize(
    ("id_", "epoch", "added", "first", "known", "standing"),
    [
        # Before the first entry: five entries were trimmed that it does not need.
        ("0", "one", 8, "11", None, "continues"),
        ("0", "one", 9, "11", None, "trimmed"),
        # An older copy, from which fewer were trimmed; or one of which it is not known what it has lost.
        ("0", "one", 7, "11", None, "set back"),
        ("0", "two", 8, "11", None, "set back"),
        # The ingestor does not count.
        ("0", "one", 0, "11", None, "continues"),
        # After an entry.
        ("11", "two", 8, "11", "known", "continues"),
        ("11", "one", 8, "11", "another", "set back"),
        ("12", "one", 8, "11", None, "set back"),
        ("5", "one", 8, "11", None, "continues"),
        ("5", "one", 9, "11", None, "trimmed"),
        ("5", "one", 7, "11", None, "set back"),
        ("5", "two", 8, "11", None, "set back"),
    ],
)
def test_compares_a_position_with_the_stream(
    id_: str, epoch: str, added: int, first: str, known: str | None, standing: str
) -> None:
    found = entry(5, "a", 0)
    position = Position(id_, "0xa5:0:false" if known != "another" else "another", "one", 5, 3, 4, "none", "", 0)
    top = head(6, "a", epoch=epoch, epoch_reason="lost", added=added)
    snapshot = Snapshot(top, 3, first, "13", [None if known is None else Entry(id_, found)], [])
    source: Any = Entries([])
    assert standing_of(position, snapshot, source) == standing
    assert standing_of(position, replace(snapshot, head=None), source) == "empty"
    reset = replace(snapshot, head=replace(top, epoch_reason="reset"))
    assert standing_of(position, reset, source) == ("reset" if epoch == "two" else standing)


REPLACED = [(5, "a", True), (5, "b", False), (6, "b", False)]
"""The entry that adds block 5a was trimmed, and the one that removes it is kept."""


def test_reconcile_retracts_a_block_whose_add_was_trimmed_and_whose_removal_is_kept() -> None:
    found = reconciled(REPLACED, (applied(5, "a"),))
    assert found is not None
    assert [(step.kind, step.block.hash) for step in found.steps] == [("undo", "0xa5")]
    # What is kept is read again: the removal of a block that is not applied is skipped.
    assert (found.state.position.id, found.state.position.final) == ("0", 3)


def test_reconcile_reports_what_was_trimmed_before_it_was_read() -> None:
    with pytest.raises(TrimmedError, match="after block 3 are needed again"):
        reconciled(REPLACED, (applied(5, "a"),), id="5", offset=5)


def test_reconcile_keeps_an_applied_block_whose_entries_were_trimmed_but_none_that_must_be_applied_again() -> None:
    kept = reconciled([(6, "b", False)], (applied(5, "a"), applied(6, "b")))
    assert kept is not None
    assert (list(kept.steps), [block.hash for block in kept.state.stack]) == ([], ["0xa5", "0xb6"])
    assert kept.state.position.id == "11"
    with pytest.raises(TrimmedError, match="after block 3 are needed again"):
        reconciled([(6, "b", False)], (applied(5, "a", pending=True),))


def test_resumes_at_the_position_without_a_set_back() -> None:
    moves = [(5, "b", False), (6, "c", False), (6, "c", True), (6, "b", False)]
    found = reconciled(moves, (applied(5, "b"), applied(6, "b", pending=True)), id="13", identity="0xc6:0:true", offset=13)
    assert found is not None
    # What was read may be trimmed at any time: it is not read again.
    assert (found.state.position.id, found.state.position.offset, found.state.position.epoch) == ("13", 13, "two")
    # Nor is it needed by a reader that is not pinned.
    found = reconciled([(6, "b", False)], (applied(6, "b", pending=True),), pinned=False, epoch="two")
    assert found is not None
    assert (found.state.position.id, found.state.position.offset) == ("10", 10)


def test_reads_again_what_must_be_applied_again_without_a_set_back() -> None:
    moves = [(5, "b", False), (6, "b", False), (7, "b", False)]
    stack = (applied(5, "b"), applied(6, "b", pending=True), applied(7, "b"))
    found = reconciled(moves, stack, id="13", identity="0xb7:0:false", offset=13)
    assert found is not None
    assert [(step.kind, step.block.hash) for step in found.steps] == [("undo", "0xb7")]
    assert (found.state.position.id, found.state.position.offset) == ("11", 11)


POSITION = Position("5-0", "0x1:0:false", "e", 5, 3, 4, "none", "", 7)
BLOCK = AppliedBlock(
    1,
    4,
    "0x4",
    1_700_000_000,
    False,
    (Log(1, 4, "0x4", "0xt", 2, 3, "0xc", ("0xa", "0xb"), "0xd", "1:0x4:3", "A(uint256)", {"x": "é"}),),
)
# What the TypeScript client writes: test/clients/python.test.ts compares the tables, and continues positions both ways.
POSITION_JSON = (
    '{"id":"5-0","identity":"0x1:0:false","epoch":"e","offset":5,"final":3,"block":4,"filter":"none","owner":"","beat":7}'
)
BLOCK_JSON = (
    '{"chain":1,"hash":"0x4","timestamp":1700000000,"skipped":false,"pending":false,'
    '"logs":[[3,"0xt",2,"0xc",["0xa","0xb"],"0xd","A(uint256)",{"x":"é"}]]}'
)


def test_stores_positions_as_the_typescript_client_does(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    checkpoint = sqlite(path)
    reader = ReaderId("reader", 1)
    with checkpoint.transaction() as tx:
        assert checkpoint.load(tx, reader) is None
        checkpoint.save(tx, reader, Save(POSITION, (), (pack(BLOCK),)))
    database = sqlite3.connect(path)
    assert database.execute("SELECT * FROM event_ingestor_readers").fetchall() == [("reader", 1, POSITION_JSON)]
    assert database.execute("SELECT * FROM event_ingestor_blocks").fetchall() == [("reader", 1, 4, BLOCK_JSON)]
    assert database.execute("SELECT version FROM event_ingestor_migrations").fetchall() == [(1,)]
    database.execute("UPDATE event_ingestor_readers SET position = ?", (json.dumps({**json.loads(POSITION_JSON), "later": 1}),))
    database.commit()
    with checkpoint.transaction() as tx:
        assert checkpoint.load(tx, reader) == POSITION
        assert list(map(unpack, checkpoint.blocks(tx, reader))) == [BLOCK]
    database.execute("INSERT INTO event_ingestor_migrations VALUES (99)")
    database.commit()
    with pytest.raises(ConsumerError, match="version 99"), sqlite(path).transaction():
        pass
    database.close()
    checkpoint.close()


def test_refuses_impossible_tables() -> None:
    with pytest.raises(OptionError, match="no name of a schema or table"):
        sqlite("a.db", table='x"; DROP')
    with pytest.raises(OptionError, match="in memory"):
        sqlite(":memory:")


def test_options_have_the_defaults_of_follow() -> None:
    assert options_of(checkpoint=memory()).lease == 10.0
