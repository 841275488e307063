"""A checkpoint in memory: the next process begins at ``from_`` again."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..checkpoint import Checkpoint, ReaderId, Save
from ..position import PackedBlock, Position


class MemoryCheckpoint:
    at_least_once = True
    # Nothing is rolled back.
    in_transaction = False
    has_open_writes = False

    def __init__(self) -> None:
        self._positions: dict[ReaderId, Position] = {}
        self._blocks: dict[ReaderId, dict[int, PackedBlock]] = {}
        self._lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            yield None

    def load(self, tx: None, reader: ReaderId) -> Position | None:
        return self._positions.get(reader)

    def blocks(self, tx: None, reader: ReaderId) -> Sequence[PackedBlock]:
        return sorted(self._blocks.get(reader, {}).values())

    def save(self, tx: None, reader: ReaderId, save: Save) -> None:
        self._positions[reader] = save.position
        blocks = self._blocks.setdefault(reader, {})
        for number in save.remove:
            blocks.pop(number, None)
        for block in save.put:
            blocks[block.number] = block

    def second(self) -> "MemoryCheckpoint":
        return self

    def close(self) -> None:
        pass


def memory() -> Checkpoint[None]:
    """A checkpoint in memory: at least once, and only while this process runs."""
    return MemoryCheckpoint()
