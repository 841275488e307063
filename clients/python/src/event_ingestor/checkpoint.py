"""Where a reader's state is stored: with what it applied, in one transaction, if the store has transactions."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Protocol, TypeVar

from .position import PackedBlock, Position

Tx = TypeVar("Tx")
"""What a reader writes by in a transaction: a connection."""


class ReaderId(NamedTuple):
    """Whose state: a name, and the id of a chain."""

    name: str
    chain: int


@dataclass(frozen=True, slots=True)
class Save:
    """What a transaction changes: the position, and applied blocks by their numbers."""

    position: Position
    remove: Sequence[int]
    """The numbers of blocks to delete: retracted, or final by now. Deleted before ``put`` is written."""
    put: Sequence[PackedBlock]


class Checkpoint(Protocol[Tx]):
    """A store of states. A transaction applies all of its writes or none."""

    @property
    def at_least_once(self) -> bool:
        """Whether the store has no transactions with the reader's own writes: a block may be delivered again."""
        ...

    def transaction(self) -> AbstractContextManager[Tx]:
        """A transaction that is committed at the end of the block, or rolled back if it raises. In an open transaction of this
        thread, it is a part of that one.
        """
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has an open transaction of this checkpoint."""
        ...

    @property
    def has_open_writes(self) -> bool:
        """Whether the caller has begun a transaction by itself on the connection of this checkpoint, which ``transaction`` would
        continue and commit.
        """
        ...

    def load(self, tx: Tx, reader: ReaderId) -> Position | None:
        """Reads the position, and locks it until the transaction ends; ``None`` before the first save."""
        ...

    def blocks(self, tx: Tx, reader: ReaderId) -> Sequence[PackedBlock]:
        """Reads the applied blocks, lowest first."""
        ...

    def save(self, tx: Tx, reader: ReaderId, save: Save) -> None:
        """Stores the position, deletes the blocks numbered in ``remove``, then writes those in ``put``."""
        ...

    def second(self) -> Optional["Checkpoint[Any]"]:
        """The same store by a connection of its own, for the heartbeats of another thread. ``None``: without heartbeats."""
        ...

    def close(self) -> None:
        """Closes the connections that it has opened."""
        ...
