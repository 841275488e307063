"""A checkpoint for a reader that writes outside of its transactions."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic

from ..checkpoint import Checkpoint, ReaderId, Save, Tx
from ..position import PackedBlock, Position


class AtLeastOnce(Generic[Tx]):
    at_least_once = True

    def __init__(self, checkpoint: Checkpoint[Tx]) -> None:
        self._checkpoint = checkpoint

    def transaction(self) -> AbstractContextManager[Tx]:
        return self._checkpoint.transaction()

    @property
    def in_transaction(self) -> bool:
        return self._checkpoint.in_transaction

    @property
    def has_open_writes(self) -> bool:
        return self._checkpoint.has_open_writes

    def load(self, tx: Tx, reader: ReaderId) -> Position | None:
        return self._checkpoint.load(tx, reader)

    def blocks(self, tx: Tx, reader: ReaderId) -> Sequence[PackedBlock]:
        return self._checkpoint.blocks(tx, reader)

    def save(self, tx: Tx, reader: ReaderId, save: Save) -> None:
        self._checkpoint.save(tx, reader, save)

    def second(self) -> Checkpoint[Any] | None:
        return self._checkpoint.second()

    def close(self) -> None:
        self._checkpoint.close()


def at_least_once(checkpoint: Checkpoint[Tx]) -> Checkpoint[Tx]:
    """A checkpoint for a reader that writes elsewhere (an HTTP call, another database) and then calls ``block.commit()``.

    Each block that is not final is marked in a transaction before it is delivered. If the process ends before the commit, the next
    one delivers that block again, or its retraction if a reorg has replaced it meanwhile. Only one block of each number can be
    marked: commit a change before the next one is taken, or the iteration may end with ``UNCOMMITTED``.

    :param checkpoint: ``sqlite(…)`` or ``postgres(…)``
    """
    return AtLeastOnce(checkpoint)
