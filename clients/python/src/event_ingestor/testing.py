"""Replays recorded entries without a stream, for tests of what a reader does with its blocks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .entry import Entry, Log, identity_of, number_of
from .events import Decoder, Event, EventItem
from .filter import Asked, make_matches
from .plan import Finality, View, plan
from .position import Position, State
from .reader import ReaderOptions


class ReplayedChange(NamedTuple):
    """A block to apply, or one to retract, as ``follow`` delivers it. There is nothing to commit."""

    type: Literal["apply", "undo"]
    chain: int
    number: int
    hash: str
    timestamp: int
    finalized: bool
    logs: Sequence[Log]
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class _Horizon:
    number: int
    hash: str
    part: int
    final_number: int


def replay(
    entries: Sequence[Mapping[str, str]],
    *,
    events: Sequence[EventItem] | None = None,
    addresses: Sequence[str] = (),
    final_number: int = -1,
) -> Iterator[ReplayedChange]:
    """Iterates over the changes that a reader with the finality ``"latest"`` would see if it read each entry when it arrives: a block
    is complete when the next one begins, or at the end.

    :param entries: the fields of each entry as text, as ``event-ingestor tail --json`` prints them
    :param events: as of ``follow``
    :param addresses: as of ``follow``
    :param final_number: blocks up to this number are delivered as final. By default none
    :raises OptionError: if the events are wrong, or if a library is missing
    """
    decoder = Decoder(events)
    asked = Asked(addresses, decoder.topics)
    finality: Finality = "latest"
    wanted = ReaderOptions(0, "", asked, finality, make_matches(asked), False, None)
    all_ = [Entry(str(i + 1), fields) for i, fields in enumerate(entries)]
    state = State(Position("0", "", "", 0, -1, -1, "", "", 0), ())
    start = 0
    while start < len(all_):
        first = all_[start].fields
        run = (first["block_hash"], first["removed"])
        end = start + 1
        while end < len(all_) and (all_[end].fields["block_hash"], all_[end].fields["removed"]) == run:
            end += 1
        number = number_of(all_[start])
        later = min(map(number_of, all_[end:]), default=math.inf)
        final = min(final_number, number) if later > number else -1
        horizon = _Horizon(number, identity_of(all_[start]), 0, final)
        planned = plan(state, View(all_[start:end], horizon, True, math.inf), wanted)
        for kind, block, _, _ in planned.steps:
            yield ReplayedChange(
                kind,
                block.chain,
                block.number,
                block.hash,
                block.timestamp,
                block.finalized,
                block.logs,
                decoder.decode(block.logs),
            )
        state = planned.state
        start = end
