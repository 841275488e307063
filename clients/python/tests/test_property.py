"""Random journals, crashes, failovers and reorgs: a reader's table equals the chain. A port of test/clients/property.test.ts."""

import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
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


class LostReply(Exception):
    """A transaction was committed, and its reply was lost."""


class Interrupted:
    """A checkpoint whose every call may be the last one."""

    def __init__(self, checkpoint: Checkpoint[Any], play: "Play", process: int) -> None:
        self._checkpoint = checkpoint
        self._interrupt = lambda: play.interrupt(process)
        self.loses = False
        """Whether the next transaction of the caller loses its reply."""
        self.at_least_once = checkpoint.at_least_once

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._checkpoint.transaction() as tx:
            yield tx
        self._interrupt()
        if self.loses and not self.in_transaction:
            self.loses = False
            raise LostReply

    @property
    def in_transaction(self) -> bool:
        return self._checkpoint.in_transaction

    @property
    def has_open_writes(self) -> bool:
        return self._checkpoint.has_open_writes

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
        self.heartbeat: Callable[[], None] | None = None
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
        # Another connection waits for the end of a transaction.
        if self.heartbeat is not None and dice.chance(0.03) and not self.database.in_transaction:
            with suppress(Exception):
                self.heartbeat()
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

    def code_of(self, run: Callable[[], Any]) -> str:
        """The code of an error of the library; ``""`` without one."""
        try:
            run()
        except ConsumerError as error:
            return error.code
        return ""

    def take(self, changes: Changes) -> Change[Any] | None:
        """The next change, which may never come; ``None`` at the end."""
        self.is_waiting = True
        try:
            return next(changes, None)
        finally:
            self.is_waiting = False

    def commit_rolled_back(self, block: Change[Any], checkpoint: Checkpoint[Any]) -> None:
        """Commits a change in a transaction that is rolled back."""
        with suppress(Abandoned), checkpoint.transaction() as tx:
            block.commit(tx)
            raise Abandoned

    def assert_rolled_back(self, changes: Changes) -> None:
        """Nothing passes over a change that was rolled back."""
        try:
            later = self.take(changes)
            if later is not None:
                later.commit()
        except ConsumerError as error:
            assert error.code == "ROLLED_BACK"
        else:
            assert later is None

    def commit_at_least_once(self, block: Change[Any], checkpoint: Checkpoint[Any]) -> None:
        roll = self.dice.next()
        if roll < 0.7:
            block.commit()
        elif roll < 0.85:
            with checkpoint.transaction() as tx:
                block.commit(tx)
        else:
            assert self.code_of(lambda: self.enter(block.transaction())) in ("", "COMMITTED")

    def handle_at_least_once(self, changes: Changes, checkpoint: Checkpoint[Any], process: int) -> None:
        """Commits come late, or out of order, or never, or twice."""
        dice = self.dice
        uncommitted: list[Change[Any]] = []
        try:
            for block in changes:
                self.write(block)
                self.interrupt(process)
                uncommitted.append(block)
                if dice.chance(0.8):
                    # Mostly the last one.
                    i = len(uncommitted) - 1 if dice.chance(0.6) else dice.below(len(uncommitted))
                    if dice.chance(0.03):
                        self.commit_rolled_back(uncommitted[i], checkpoint)
                        if dice.chance(0.5):
                            return self.assert_rolled_back(changes)
                    self.commit_at_least_once(uncommitted[i], checkpoint)
                    if dice.chance(0.1):
                        self.commit_at_least_once(uncommitted[dice.below(i + 1)], checkpoint)
                    del uncommitted[: i + 1]
                # Sometimes the caller leaves.
                if dice.chance(0.01):
                    return None
        except ConsumerError as error:
            assert error.code == "UNCOMMITTED" and uncommitted
        return None

    def commit(self, block: Change[Any], tx: Any, process: int) -> None:
        self.write(block)
        self.interrupt(process)
        block.commit(tx)

    def commit_several(self, blocks: list[Change[Any]], changes: Changes, tx: Any, process: int) -> None:
        """In an open transaction of the caller: changes that were delivered before, and some that are while it is open."""
        dice = self.dice
        if dice.chance(0.2):
            # Commits the last one first: it covers those before.
            for block in blocks:
                self.write(block)
                self.interrupt(process)
            for block in reversed(blocks):
                block.commit(tx)
        else:
            for block in blocks:
                self.commit(block, tx, process)
        for _ in range(dice.below(4) if dice.chance(0.5) else 0):
            later = next(changes, None)
            if later is None:
                break
            self.commit(later, tx, process)
            blocks.append(later)

    def repeat(self, block: Change[Any], checkpoint: Checkpoint[Any], codes: Sequence[str]) -> None:
        """A caller that has lost the reply repeats its transaction."""

        def run() -> None:
            with checkpoint.transaction() as tx:
                block.commit(tx)

        code = self.code_of(run if self.dice.chance(0.5) else lambda: self.enter(block.transaction(), is_refused=True))
        # It may have ended meanwhile, as it was asked for a change already.
        assert code in codes or (code == "CLOSED" and self.stop.is_set()), code

    def enter(self, transaction: AbstractContextManager[Any], is_refused: bool = False) -> None:
        with transaction:
            assert not is_refused, "the transaction is repeated"

    def handle_exactly_once(self, changes: Changes, checkpoint: Interrupted, process: int) -> None:
        """Commits in transactions of one change or several, some of which are rolled back, or lose their replies."""
        dice = self.dice
        for block in changes:
            blocks = [block]
            # Some come late.
            while dice.chance(0.1):
                later = self.take(changes)
                if later is None:
                    assert self.code_of(block.commit) == "CLOSED"
                    return
                blocks.append(later)
            if len(blocks) == 1 and dice.chance(0.1):
                # A transaction of the connection itself, in which an error may end the iteration.
                self.database.execute("BEGIN")
                self.write(block)
                self.interrupt(process)
                if dice.chance(0.1):
                    return
                block.commit()
                assert not self.database.in_transaction
                continue
            is_single = len(blocks) == 1 and dice.chance(0.7)
            is_abandoned = dice.chance(0.05)
            is_lost = not is_abandoned and dice.chance(0.1)
            count = len(blocks)
            try:
                with block.transaction() if is_single else checkpoint.transaction() as tx:
                    if is_single:
                        self.write(block)
                        self.interrupt(process)
                    else:
                        self.commit_several(blocks, changes, tx, process)
                    if is_abandoned:
                        raise Abandoned
                    checkpoint.loses = is_lost
            except LostReply:
                for one in blocks:
                    self.repeat(one, checkpoint, ["COMMITTED"] if one is blocks[-1] else ["COMMITTED", ""])
            except Abandoned:
                if len(blocks) > count or self.stop.is_set() or dice.chance(0.5):
                    return self.assert_rolled_back(changes)
                with checkpoint.transaction() as tx:
                    for one in blocks:
                        self.commit(one, tx, process)
            if dice.chance(0.1):
                self.repeat(blocks[-1], checkpoint, ["COMMITTED"])
            if dice.chance(0.01):
                return
        return

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("event_ingestor.consumer._INTERVAL", 0.0 if self.dice.chance(0.5) else 1e9)
        while not self.is_done and self.looks <= MOST_LOOKS:
            self.process += 1
            mine = self.process
            self.stop.clear()
            self.is_waiting = False
            checkpoint: Checkpoint[Any] = sqlite(self.database)
            if not self.exactly_once:
                checkpoint = at_least_once(checkpoint)
            interrupted = Interrupted(checkpoint, self, mine)
            options = options_of(
                sqlite="model",
                source=None,
                name="table",
                finality=self.finality,
                addresses=[] if self.wanted is CONTRACTS else self.wanted,
                lease=0.0,
                stop=self.stop,
                checkpoint=interrupted,
            )
            source = ModelSource(self.model, lambda mine=mine: self.interrupt(mine))
            changes = follow_from(lambda _, source=source: source, options)
            self.heartbeat = lambda changes=changes, checkpoint=checkpoint: changes.gi_frame.f_locals[
                "consumer"
            ].session.heartbeat(checkpoint)
            try:
                if self.exactly_once:
                    self.handle_exactly_once(changes, interrupted, mine)
                else:
                    self.handle_at_least_once(changes, interrupted, mine)
                changes.close()
            except Crash:
                self.process += 1
                with suppress(Crash):
                    changes.close()
            # Nothing but a commit ends a transaction of the caller.
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
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
