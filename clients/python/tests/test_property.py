"""Random journals, crashes, failovers and reorgs: a reader's table equals the chain. A port of test/clients/property.test.ts."""

import itertools
import os
import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from journal_model import CONTRACTS, Dice, JournalModel, ModelSource
from test_streams import options_of

from event_ingestor import Change, Checkpoint, ConsumerError, Finality, ReaderId, Save, at_least_once, sqlite
from event_ingestor.changes import follow_from
from event_ingestor.position import PackedBlock, Position

Changes = Generator[Change[Any], None, None]

SEEDS = int(os.environ.get("CONSUMER_SEEDS", "120"))
"""How many random journals are read in each of the ways."""

FIRST = int(os.environ.get("CONSUMER_FIRST", "1"))

MOST_LOOKS = 4000
"""More looks than any journal needs to be read to its end."""


class Crash(BaseException):
    """The process ends here."""


class Abandoned(Exception):
    """The caller rolls back its transaction."""


class Interrupted:
    """A checkpoint whose every call may be the last one."""

    def __init__(self, checkpoint: Checkpoint[Any], play: "Play", process: int) -> None:
        self._checkpoint = checkpoint
        self._interrupt = lambda: play.interrupt(process)
        self.at_least_once = checkpoint.at_least_once

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._checkpoint.transaction() as tx:
            yield tx
        self._interrupt()

    @property
    def in_transaction(self) -> bool:
        return self._checkpoint.in_transaction

    def load(self, tx: Any, reader: ReaderId) -> Position | None:
        self._interrupt()
        return self._checkpoint.load(tx, reader)

    def blocks(self, tx: Any, reader: ReaderId) -> Sequence[PackedBlock]:
        return self._checkpoint.blocks(tx, reader)

    def save(self, tx: Any, reader: ReaderId, save: Save) -> None:
        self._interrupt()
        self._checkpoint.save(tx, reader, save)
        self._interrupt()

    def second(self) -> None:
        return None

    def close(self) -> None:
        pass


class Play:
    """One random journal, read to its end."""

    def __init__(self, exactly_once: bool, finality: Finality, seed: int) -> None:
        self.exactly_once = exactly_once
        self.finality: Finality = finality
        self.dice = dice = Dice(seed)
        self.model = JournalModel(dice)
        self.wanted = CONTRACTS if dice.chance(0.5) else [CONTRACTS[dice.below(len(CONTRACTS))]]
        self.is_slow = dice.chance(0.3)
        self.steps = 50 + dice.below(200)
        self.crashes = dice.below(4)
        self.looks = 0
        self.process = 0
        self.stop = threading.Event()
        self.is_waiting = False
        """Whether the caller waits for a change that may never come."""
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.execute("CREATE TABLE logs (key TEXT PRIMARY KEY)")
        self.elsewhere: set[str] = set()

    def expected(self) -> list[str]:
        limit: float = float("inf")
        if self.finality == "finalized":
            limit = self.model.final_number
        elif self.finality != "latest":
            limit = len(self.model.chain) - self.finality
        return sorted(
            f"1:{block.hash}:{i}"
            for block in self.model.chain
            if block.number <= limit
            for i, contract in enumerate(block.logs)
            if contract in self.wanted
        )

    def rows(self) -> list[str]:
        if not self.exactly_once:
            return sorted(self.elsewhere)
        return [key for (key,) in self.database.execute("SELECT key FROM logs ORDER BY key")]

    @property
    def is_done(self) -> bool:
        return self.steps <= 0 and self.model.is_complete and self.rows() == self.expected()

    def interrupt(self, process: int) -> None:
        """Things happen at any call, and the process may end there."""
        if process != self.process:
            raise Crash
        dice = self.dice
        self.looks += 1
        if self.looks > MOST_LOOKS:
            self.stop.set()
        if self.steps > 0:
            if not self.is_slow or dice.chance(0.2):
                for _ in range(dice.below(3)):
                    self.steps -= 1
                    self.model.step()
        else:
            self.model.ingest()
        if self.crashes > 0 and dice.chance(0.02):
            self.crashes -= 1
            self.process += 1
            raise Crash
        if self.is_done or (self.is_waiting and self.steps <= 0 and self.model.is_complete):
            self.stop.set()

    def write(self, block: Change[Any]) -> None:
        """A block that is applied twice, or retracted without being there, fails."""
        if self.finality == "finalized":
            assert block.type == "apply" and block.finalized
        keys = [log.key for log in block.logs]
        if not self.exactly_once:
            (self.elsewhere.update if block.type == "apply" else self.elsewhere.difference_update)(keys)
        elif block.type == "apply":
            self.database.executemany("INSERT INTO logs VALUES (?)", [(key,) for key in keys])
        else:
            count = self.database.executemany("DELETE FROM logs WHERE key = ?", [(key,) for key in keys]).rowcount
            assert count == len(keys), f"{block} was not there"

    def handle_at_least_once(self, changes: Changes, process: int) -> None:
        uncommitted: list[Change[Any]] = []
        try:
            for block in changes:
                self.write(block)
                self.interrupt(process)
                uncommitted.append(block)
                if self.dice.chance(0.95):
                    # Mostly the last one.
                    i = len(uncommitted) - 1 if self.dice.chance(0.9) else self.dice.below(len(uncommitted))
                    uncommitted[i].commit()
                    del uncommitted[: i + 1]
                # Sometimes the caller leaves.
                if self.dice.chance(0.002):
                    return
        except ConsumerError as error:
            assert error.code == "UNCOMMITTED" and uncommitted

    def commit(self, block: Change[Any], tx: Any, process: int) -> None:
        self.write(block)
        self.interrupt(process)
        block.commit(tx)

    def handle_exactly_once(self, changes: Changes, checkpoint: Checkpoint[Any], process: int) -> None:
        dice = self.dice
        for block in changes:
            roll = dice.next()
            if roll < 0.8:
                with block.transaction():
                    self.write(block)
                    self.interrupt(process)
            else:
                more = dice.below(4)
                try:
                    with checkpoint.transaction() as tx:
                        self.commit(block, tx, process)
                        for later in itertools.islice(changes, more):
                            self.commit(later, tx, process)
                        if roll > 0.95:
                            raise Abandoned
                except Abandoned:
                    if more == 0 and dice.chance(0.5):
                        with checkpoint.transaction() as tx:
                            self.commit(block, tx, process)
                        continue
                    self.is_waiting = True
                    for later in changes:
                        with pytest.raises(ConsumerError, match="was rolled back"):
                            later.commit()
                        break
                    return
            if dice.chance(0.002):
                return

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("event_ingestor.consumer._INTERVAL", 0.0 if self.dice.chance(0.5) else 1.0)
        while not self.is_done and self.looks <= MOST_LOOKS:
            self.process += 1
            mine = self.process
            self.stop.clear()
            self.is_waiting = False
            checkpoint: Checkpoint[Any] = sqlite(self.database)
            if not self.exactly_once:
                checkpoint = at_least_once(checkpoint)
            checkpoint = Interrupted(checkpoint, self, mine)
            options = options_of(
                sqlite="model",
                source=None,
                name="table",
                finality=self.finality,
                addresses=[] if self.wanted is CONTRACTS else self.wanted,
                lease=0.0,
                stop=self.stop,
                checkpoint=checkpoint,
            )
            source = ModelSource(self.model, lambda mine=mine: self.interrupt(mine))
            changes = follow_from(lambda _, source=source: source, options)
            try:
                if self.exactly_once:
                    self.handle_exactly_once(changes, checkpoint, mine)
                else:
                    self.handle_at_least_once(changes, mine)
                changes.close()
            except Crash:
                self.process += 1
                with suppress(Crash):
                    changes.close()
            assert not self.database.in_transaction
        assert self.rows() == self.expected()
        self.database.close()


@pytest.mark.parametrize("finality", ["latest", "finalized", 3])
@pytest.mark.parametrize("exactly_once", [True, False], ids=["exactly_once", "at_least_once"])
def test_a_table_equals_the_canonical_chain(
    exactly_once: bool, finality: Finality, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        try:
            Play(exactly_once, finality, seed).run(monkeypatch)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
