"""For a reader that lags: the lowest block number of each later page of the stream, which tells which blocks survive.

Without it, a reader that lags would have to apply, and keep for retraction, blocks that a later page retracts, although the head
calls their height final by now.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional

from .entry import Entry, Head, identity_of, number_of
from .source import Source


class Segment(NamedTuple):
    """A page of the stream: the entries up to ``to``."""

    to: str
    minimum: int
    size: int


class Range(NamedTuple):
    """What to read next, and what is known of the rest."""

    to: str
    later_minimum: float
    is_at_horizon: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    head: Head
    """The head of the journal at the last entry that is known."""
    id: str
    """The last entry that is known."""
    identity: str
    segments: Sequence[Segment]

    def from_(self, id_: str, compare: Callable[[str, str], int]) -> "Backlog":
        """The segments that are not entirely at or below an id."""
        for at, segment in enumerate(self.segments):
            if compare(segment.to, id_) > 0:
                return self if at == 0 else self._with(self.segments[at:])
        return self._with(())

    def _with(self, segments: Sequence[Segment]) -> "Backlog":
        return Backlog(self.head, self.id, self.identity, segments)

    @property
    def is_consumed(self) -> bool:
        return len(self.segments) == 0

    @property
    def count(self) -> int:
        """The number of entries, of which the first segment's may be read already."""
        return sum(segment.size for segment in self.segments)

    def next(self, count: int) -> Range:
        """
        The first segments, with so many entries after the first one, of which only the end may not be read yet: the id up to which
        to read, and what is known of the rest.
        """
        segments = self.segments
        i = total = 0
        while i < len(segments) - 1 and total < count:
            i += 1
            total += segments[i].size
        later = segments[i + 1 :]
        return Range(segments[i].to, min((one.minimum for one in later), default=math.inf), not later)

    @staticmethod
    def of_page(page: Sequence[Entry], head: Head) -> Optional["Backlog"]:
        """What a page tells that goes up to the end of a snapshot."""
        if not page:
            return None
        last = page[-1]
        return Backlog(head, last.id, identity_of(last), (_segment_of(page),))


def extend(
    source: Source, backlog: Backlog | None, after: str, head: Head, last: str, page_size: int
) -> tuple[Backlog, float] | None:
    """Reads the entries up to the end of a snapshot.

    :param after: the position of the reader, if nothing is known yet
    :returns: also the lowest block number of what is new; ``None`` if the store was set back meanwhile
    """
    segments: list[Segment] = []
    end, identity = (after, "") if backlog is None else (backlog.id, backlog.identity)
    while source.compare(end, last) < 0:
        page = source.read(end, last, page_size)
        if not page:
            return None
        end, identity = page[-1].id, identity_of(page[-1])
        segments.append(_segment_of(page))
    minimum = min((one.minimum for one in segments), default=math.inf)
    known = () if backlog is None else tuple(backlog.segments)
    return Backlog(head, end, identity, (*known, *segments)), minimum


def _segment_of(page: Sequence[Entry]) -> Segment:
    return Segment(page[-1].id, min(map(number_of, page)), len(page))
