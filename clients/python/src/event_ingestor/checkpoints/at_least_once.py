"""A checkpoint for a reader whose own writes are in no transaction of it."""

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
    """For a reader that writes elsewhere (an HTTP call, another database) and then calls ``block.commit()``.

    Each block is noted before it is delivered: a process that ends before it has committed may have handled it. The next one applies
    it again, or undoes it if a reorg has replaced it meanwhile.

    :param checkpoint: ``sqlite(…)`` or ``postgres(…)``
    """
    return AtLeastOnce(checkpoint)
