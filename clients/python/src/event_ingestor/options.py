"""The options of a consumer, and what they must be."""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from .checkpoint import Checkpoint, Tx
from .errors import OptionError
from .events import EventItem
from .plan import Finality
from .reader import FilterChange, From
from .redis_source import RedisTarget


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reader is."""

    chain: int
    through: int
    """Blocks up to here are delivered, as far as ``finality`` permits."""
    finalized: int
    """Delivered blocks up to here can no longer be retracted."""
    lag: int
    """Blocks of the journal that are not delivered yet."""


@dataclass(frozen=True, slots=True)
class Options(Generic[Tx]):
    source: RedisTarget | None
    sqlite: str | None
    prefix: str
    chain: int
    name: str
    from_: From
    finality: Finality
    checkpoint: Checkpoint[Tx]
    events: Sequence[EventItem] | None
    addresses: Sequence[str]
    pinned: bool
    lease: float
    on_filter_changed: Callable[[FilterChange], None] | None
    on_progress: Callable[[Progress], None] | None
    on_warning: Callable[[Exception], None] | None
    stop: threading.Event | None


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


def check(options: Options[Any]) -> None:
    """:raises OptionError: if an option is missing or wrong"""
    _require(
        (options.source is None) != (options.sqlite is None),
        "set the URL of Redis or sqlite, the stream to read, and not both",
    )
    _require(_is_whole(options.chain, 1), f"chain: {options.chain!r} is no id of a chain")
    _require(
        isinstance(options.name, str) and re.fullmatch(r"[\w.:-]{1,100}", options.name, re.ASCII) is not None,
        f"name: {options.name!r}: 1 to 100 letters, digits, and . _ : -",
    )
    _require(
        options.from_ in ("earliest", "now") or _is_whole(options.from_, 0),
        f'from_: {options.from_!r}: set "earliest", "now", or the number of a block',
    )
    _require(
        options.finality in ("latest", "finalized") or _is_whole(options.finality, 0),
        f'finality: {options.finality!r}: set "latest", "finalized", or a number of confirmations',
    )
    _require(
        not isinstance(options.addresses, str)
        and all(re.fullmatch(r"0x[0-9a-fA-F]{40}", address) for address in options.addresses),
        f"addresses: {options.addresses!r}: a list, each 0x and 40 hexadecimal digits",
    )
    _require(
        callable(getattr(options.checkpoint, "transaction", None)),
        "checkpoint: set postgres(…), sqlite(…), memory(), or your own",
    )
    lease = options.lease
    _require(
        isinstance(lease, int | float) and not isinstance(lease, bool) and 0 <= lease < float("inf"),
        f"lease: {lease!r}: set seconds, such as 10",
    )
