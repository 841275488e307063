"""Where a reader reads from: the stream of one chain, in Redis or in SQLite."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .entry import Entry, Head


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a stream at one moment."""

    head: Head | None
    """``None`` while there is no journal."""
    length: int
    """The number of entries that are kept."""
    first: str | None
    """The id of the first entry that is kept; ``None`` in an empty stream."""
    last: str | None
    """The id of the last entry; ``None`` in an empty stream."""
    known: Sequence[Entry | None]
    """The entries that were asked for by id, in that order."""
    page: Sequence[Entry]
    """The entries after ``after``, up to and including ``up_to``, not more than ``count``."""


def first_number_of(head: Head, length: int) -> int:
    """The block from which on every entry is there. While nothing was trimmed, that is the block at which the journal begins, also if
    its first entry is of a later one.

    :param length: the number of entries that are kept
    """
    if head.added <= length or head.first_number is None:
        return head.start_number
    return head.first_number


class Report(NamedTuple):
    """A reader's position as it is published: the ingestor does not trim what a reader has not read."""

    id: str
    offset: int
    block: int
    finality: str


class Source(Protocol):
    """The stream of one chain."""

    @property
    def lowest(self) -> str:
        """The id before every entry."""
        ...

    def compare(self, one: str, other: str) -> int:
        """Below 0 if the first id is lower."""
        ...

    def snapshot(self, known: Sequence[str], after: str, count: int, up_to: str | None = None) -> Snapshot:
        """Reads all of it at one moment. ``up_to``: ``None`` for the end of the stream."""
        ...

    def read(self, after: str, up_to: str, count: int) -> Sequence[Entry]:
        """The entries after an id, up to and including another one, not more than ``count``."""
        ...

    def read_back(self, from_: str, count: int) -> Sequence[Entry]:
        """The entries at or below an id, last first, not more than ``count``."""
        ...

    def changed(self, after: str, seconds: float) -> None:
        """Returns when there is an entry after this id, after this time at the latest."""
        ...

    def report(self, reader: str, report: Report) -> None:
        """Publishes the position of a reader."""
        ...

    def close(self) -> None:
        """Closes the connections that it has opened."""
        ...


KNOWN_VERSION = 2
"""The version of the journal that this library reads."""


class SourceUnavailable(Exception):
    """A failure to retry: of the connection, of a server that is loading, of a locked file."""
