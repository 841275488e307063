"""What a reader asks for, compared with logs and with the ingestor's filter."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .entry import Log
from .errors import FilterError


class EventTopic(NamedTuple):
    """The topic0 of an event, and how many topics its logs have."""

    topic0: str
    topics: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reader asks for. Without addresses: of any contract; without events: any event."""

    addresses: Sequence[str]
    events: Sequence[EventTopic]


def make_matches(asked: Asked) -> Callable[[Log], bool]:
    """Makes the function that says whether a log is asked for."""
    contracts = frozenset(address.lower() for address in asked.addresses)
    known = frozenset((event.topic0, event.topics) for event in asked.events)

    def matches(log: Log) -> bool:
        if contracts and log.contract not in contracts:
            return False
        return not known or (bool(log.topics) and (log.topics[0], len(log.topics)) in known)

    return matches


def _includes(all_: Sequence[str] | None, some: Sequence[str]) -> bool:
    """Whether all of these are stored. What a reader does not name is whatever the ingestor stores."""
    return not all_ or all(one in all_ for one in some)


def assert_included(chain: int, content: str, asked: Asked) -> None:
    """Checks that the ingestor's filter includes the contracts and events that a reader names.

    :param content: the filter as JSON, ``[addresses, topics]``
    :raises FilterError: if it does not
    """
    contracts, topics = json.loads(content)
    addresses = [address.lower() for address in asked.addresses]
    if _includes(contracts, addresses) and _includes(
        topics[0] if topics else None, [event.topic0 for event in asked.events]
    ):
        return
    raise FilterError(
        chain,
        "the ingestor's filter does not include what this reader asks for. Widen the filter (ADDRESSES, TOPICS, EVENTS), "
        "or ask for less (addresses, events)",
    )


def assert_still_included(chain: int, content: str | None, asked: Asked) -> None:
    """Checks that a filter that has changed still includes all that a reader got before it.

    :param content: the new filter as JSON; ``None``: not known
    :raises FilterError: if it does not, or if that is not known: of what the reader does not name, the filter before may have
        had more
    """
    if content is not None:
        assert_included(chain, content, asked)
        contracts, topics = json.loads(content)
        unnamed = [
            *([] if asked.addresses else [contracts]),
            *([] if asked.events else topics[:1]),
            *topics[1:],
        ]
        if not any(unnamed):
            return
    raise FilterError(
        chain,
        "the ingestor's filter has changed, and it may have included more of what this reader asks for before: "
        "set on_filter_changed to decide whether to go on, or name the addresses and events that are needed",
    )
