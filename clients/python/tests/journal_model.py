"""A chain, and its journal as an ingestor writes it, in memory: with reorgs, blocks in parts, finality, trimming, and a store that is
set back. A reader reads it through ``source``. A port of test/clients/JournalModel.ts.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from event_ingestor.entry import Entry, Head, hash_of, is_removal, number_of
from event_ingestor.source import Report, Snapshot


class Dice:
    """A deterministic source of random numbers."""

    def __init__(self, seed: int) -> None:
        self.next = Random(seed).random

    def below(self, limit: int) -> int:
        """A whole number from 0 on, below ``limit``."""
        return int(self.next() * limit)

    def chance(self, probability: float) -> bool:
        return self.next() < probability


class ModelBlock(NamedTuple):
    number: int
    hash: str
    logs: Sequence[str]
    """The contract of each log."""


class Recorded(NamedTuple):
    """A block of the journal whose entries can still be removed."""

    block: ModelBlock
    written: int
    """How many of its logs are written."""


@dataclass(frozen=True, slots=True)
class Journal:
    entries: tuple[Entry, ...] = ()
    ids: tuple[int, ...] = ()
    window: tuple[Recorded, ...] = ()
    number: int = 0
    final_number: int = -1
    added: int = 0
    epoch: str = "epoch-1"
    epoch_reason: str = "begun"
    first_number: int = 1
    is_popping: bool = False
    """Whether the removal of the top block has begun: it is removed to its end, even if it is canonical again."""
    read_up_to: int = 0
    """What the reader says that it has read: entries above it are not trimmed. It is stored where the entries are."""


CONTRACTS = ["0x" + "aa" * 20, "0x" + "bb" * 20, "0x" + "cc" * 20]
"""A reader may ask for some of them."""

START = 1


class JournalModel:
    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.chain: list[ModelBlock] = []
        """The canonical chain."""
        self.final_number = START - 1
        self.journal = Journal()
        self._saved: Journal | None = None
        self._left: list[ModelBlock] = []
        self._hashes = self._ids = 0
        self._epochs = 1

    @property
    def is_complete(self) -> bool:
        """Whether the journal is what the chain is."""
        journal = self.journal
        top = journal.window[-1] if journal.window else None
        return (
            journal.number == len(self.chain)
            and not journal.is_popping
            and journal.final_number == self.final_number
            and (top is None or top.written == len(top.block.logs))
            and all(self._is_canonical(block) for block, _ in journal.window)
        )

    def _is_canonical(self, block: ModelBlock) -> bool:
        at = block.number - START
        return at < len(self.chain) and self.chain[at].hash == block.hash

    def _new_block(self, number: int) -> ModelBlock:
        dice = self.dice
        size = 0 if dice.chance(0.4) else 20 + dice.below(60) if dice.chance(0.05) else 1 + dice.below(4)
        logs = [CONTRACTS[dice.below(len(CONTRACTS))] for _ in range(size)]
        self._hashes += 1
        return ModelBlock(number, f"0x{self._hashes:064x}", logs)

    def extend(self) -> None:
        """The chain grows by a block."""
        self.chain.append(self._new_block(len(self.chain) + START))

    def fork(self) -> None:
        """Some blocks that are not final are replaced, by as many or more."""
        dice = self.dice
        possible = len(self.chain) - (self.final_number - START + 1)
        if possible == 0:
            return
        depth = 1 + dice.below(min(possible, 8))
        kept = len(self.chain) - depth
        old = self.chain[kept:]
        del self.chain[kept:]
        # Sometimes a block comes back that was replaced before.
        if self._left and self._left[0].number == kept + START and dice.chance(0.3):
            self.chain += self._left
        while len(self.chain) < kept + depth + dice.below(2):
            self.extend()
        self._left = old

    def finalize(self) -> None:
        """The chain's final block rises."""
        most = len(self.chain) - (self.final_number - START + 1)
        self.final_number += self.dice.below(most + 1)

    def _entry(self, block: ModelBlock, index: int, removed: bool) -> tuple[int, Entry]:
        self._ids += 1 + self.dice.below(3)
        fields = {
            "chain_id": "1",
            "block_number": str(block.number),
            "block_hash": block.hash,
            "tx_hash": block.hash,
            "log_index": str(index),
            "contract": block.logs[index],
            "topics": "[]",
            "data": "0x",
            "timestamp": str(1000 + block.number),
            "tx_index": "0",
            "removed": "true" if removed else "false",
        }
        return self._ids, Entry(str(self._ids), fields)

    def ingest(self) -> None:
        """The ingestor makes one move: it removes its top block if the chain does not have it, or writes more of the next one."""
        journal = self.journal
        window = journal.window
        top = window[-1] if window else None
        if top is not None and (journal.is_popping or not self._is_canonical(top.block)):
            return self._pop(top, window[:-1])
        if top is not None and top.written < len(top.block.logs):
            return self._push(top, window[:-1])
        at = journal.number - START + 1
        if at < len(self.chain):
            return self._push(Recorded(self.chain[at], 0), window)
        # The head is above the chain: a fork to a shorter one.
        if journal.number > len(self.chain) and top is None:
            self.journal = replace(journal, number=len(self.chain))
        elif journal.final_number < self.final_number <= journal.number:
            self.journal = replace(
                journal,
                final_number=self.final_number,
                window=tuple(one for one in window if one.block.number > self.final_number),
            )
        return None

    def _append(self, made: Sequence[tuple[int, Entry]], number: int, is_popping: bool, window: tuple[Recorded, ...]) -> None:
        journal = self.journal
        self.journal = replace(
            journal,
            entries=(*journal.entries, *(entry for _, entry in made)),
            ids=(*journal.ids, *(id_ for id_, _ in made)),
            added=journal.added + len(made),
            number=number,
            is_popping=is_popping,
            window=window,
        )

    def _push(self, top: Recorded, below: tuple[Recorded, ...]) -> None:
        block, written = top
        left = len(block.logs) - written
        count = 1 + self.dice.below(left) if left > 10 and self.dice.chance(0.7) else left
        made = [self._entry(block, written + i, False) for i in range(count)]
        self._append(made, block.number, self.journal.is_popping, (*below, Recorded(block, written + count)))

    def _pop(self, top: Recorded, below: tuple[Recorded, ...]) -> None:
        block, written = top
        count = 1 + self.dice.below(written) if written > 10 and self.dice.chance(0.5) else written
        made = [self._entry(block, written - 1 - i, True) for i in range(count)]
        rest = written - count
        window = (*below, Recorded(block, rest)) if rest > 0 else below
        self._append(made, block.number if rest > 0 else block.number - 1, rest > 0, window)

    def trim(self) -> None:
        """Entries that are final, and that readers have read, are trimmed."""
        journal = self.journal
        lowest = journal.window[0].block.number if journal.window else math.inf
        free = 0
        for id_, entry in zip(journal.ids, journal.entries, strict=True):
            number = number_of(entry)
            if id_ > journal.read_up_to or number > journal.final_number or number >= lowest:
                break
            free += 1
        count = self.dice.below(free + 1)
        if count == 0:
            return
        last = journal.entries[count - 1]
        following = journal.entries[count] if count < len(journal.entries) else None
        if following is None:
            first_number = journal.number + 1
        else:
            # As an ingestor tells it; a block that was removed and added again is whole if it is trimmed between.
            is_begin = following.fields["log_index"] == "0" and not is_removal(following)
            is_first = hash_of(following) != hash_of(last) or is_begin
            first_number = number_of(following) + (0 if is_first else 1)
        self.journal = replace(
            journal, entries=journal.entries[count:], ids=journal.ids[count:], first_number=first_number
        )

    def save(self) -> None:
        """The store is copied."""
        self._saved = self.journal

    def set_back(self) -> None:
        """The store is the copy again. An ingestor that noticed begins a new epoch; if all were restarted, none does."""
        saved = self._saved
        if saved is None or saved.added == self.journal.added:
            return
        if self.dice.chance(0.6):
            self._epochs += 1
            self.journal = replace(saved, epoch=f"epoch-{self._epochs}", epoch_reason="lost")
        else:
            self.journal = saved
        self._saved = None

    def step(self) -> None:
        """Something happens."""
        dice = self.dice
        roll = dice.next()
        if roll < 0.5:
            for _ in range(1 + dice.below(4)):
                self.ingest()
        elif roll < 0.72:
            for _ in range(1 + dice.below(3)):
                self.extend()
        elif roll < 0.82:
            self.fork()
        elif roll < 0.9:
            self.finalize()
        elif roll < 0.94:
            self.trim()
        elif roll < 0.98:
            self.save()
        else:
            self.set_back()

    @property
    def head(self) -> Head:
        journal = self.journal
        top = journal.window[-1] if journal.window else None
        part = 0
        if top is not None and top.written < len(top.block.logs):
            part = -top.written if journal.is_popping else top.written
        at = journal.number - START
        canonical = self.chain[at].hash if 0 <= at < len(self.chain) else ""
        return Head(
            version=2,
            epoch=journal.epoch,
            epoch_reason=journal.epoch_reason,
            number=journal.number,
            hash=canonical if top is None else top.block.hash,
            part=part,
            final_number=journal.final_number,
            start_number=START,
            first_number=journal.first_number,
            filter="none",
            filter_content="[[],[]]",
            added=journal.added,
        )


class ModelSource:
    """The stream of a model. ``before`` runs before each answer."""

    lowest = "0"

    def __init__(self, model: JournalModel, before: Callable[[], None]) -> None:
        self._model = model
        self._before = before

    def compare(self, one: str, other: str) -> int:
        return int(one) - int(other)

    def _page(self, after: str, up_to: str | None, count: int) -> Sequence[Entry]:
        journal = self._model.journal
        start = bisect_right(journal.ids, int(after))
        end = len(journal.ids) if up_to is None else bisect_right(journal.ids, int(up_to))
        return journal.entries[start : min(end, start + count)]

    def _find(self, id_: str) -> Entry | None:
        journal = self._model.journal
        at = bisect_right(journal.ids, int(id_)) - 1
        return journal.entries[at] if at >= 0 and journal.entries[at].id == id_ else None

    def snapshot(self, known: Sequence[str], after: str, count: int, up_to: str | None = None) -> Snapshot:
        self._before()
        entries = self._model.journal.entries
        return Snapshot(
            head=self._model.head,
            length=len(entries),
            first=entries[0].id if entries else None,
            last=entries[-1].id if entries else None,
            known=[self._find(id_) for id_ in known],
            page=self._page(after, up_to, count),
        )

    def read(self, after: str, up_to: str, count: int) -> Sequence[Entry]:
        self._before()
        return self._page(after, up_to, count)

    def read_back(self, from_: str, count: int) -> Sequence[Entry]:
        self._before()
        journal = self._model.journal
        end = bisect_right(journal.ids, int(from_))
        return journal.entries[max(end - count, 0) : end][::-1]

    def changed(self, after: str, seconds: float) -> None:
        self._before()

    def report(self, reader: str, report: Report) -> None:
        self._before()
        self._model.journal = replace(self._model.journal, read_up_to=int(report.id))

    def close(self) -> None:
        pass
