"""What a stream holds: entries, the head of the journal, and logs as a reader gets them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """A log that was added, or its copy with ``removed`` = ``"true"`` when a reorg retracts it. Values are text."""

    id: str
    """Rises with every entry. Redis: ``1790000000000-0``; SQLite: a number."""
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Head:
    """The public head of a journal."""

    version: int
    epoch: str
    """Changes when the store lost entries, and with a reset."""
    epoch_reason: str
    number: int
    hash: str
    part: int
    """Above 0: so many logs of this block are written, and more will follow. Below 0: so many are still to be removed."""
    final_number: int
    """-1 before the first finalized block."""
    start_number: int
    first_number: int | None
    """From this block on every entry is kept; ``None`` if an earlier version of the ingestor has not said so."""
    filter: str
    """A fingerprint of the filter by which the ingestor asks for logs."""
    filter_content: str | None
    """That filter as JSON, ``[addresses, topics]``; ``None`` if the ingestor has not said so."""
    added: int
    """The number of entries ever added in this epoch."""


@dataclass(slots=True)
class Log:
    """A log that matches, as a reader gets it. Hexadecimal values are lower-case text with ``0x``."""

    chain: int
    block_number: int
    block_hash: str
    tx_hash: str
    tx_index: int
    index: int
    contract: str
    topics: tuple[str, ...]
    data: str
    key: str
    """``chain:block hash:log index``: the same for each delivery of this log, and for no other one."""
    event: str | None = None
    """With ``EVENTS`` of the ingestor: the canonical signature."""
    args: Mapping[str, Any] | None = None
    """With ``EVENTS`` of the ingestor, and if it could be decoded: the arguments by name; integers are decimal text."""
    traceparent: str | None = None
    """The trace of the block, if it was sampled."""


@dataclass(frozen=True, slots=True)
class RawBlock:
    """A block that has logs that match."""

    chain: int
    number: int
    hash: str
    timestamp: int
    """Unix seconds."""
    finalized: bool
    """Whether no reorg can replace it any more, as the ingestor's head said when the entries were read."""
    logs: tuple[Log, ...]
    """In the order of the block."""


def number_of(entry: Entry) -> int:
    return int(entry.fields["block_number"])


def hash_of(entry: Entry) -> str:
    return entry.fields.get("block_hash", "")


def is_removal(entry: Entry) -> bool:
    return entry.fields.get("removed") == "true"


def identity_of(entry: Entry) -> str:
    """Which log an entry adds or removes: another entry under the same id has another identity."""
    fields = entry.fields
    return f"{fields.get('block_hash')}:{fields.get('log_index')}:{fields.get('removed')}"


def log_of(entry: Entry) -> Log:
    """The log of an entry."""
    fields = entry.fields
    args = fields.get("args")
    chain, block_hash, index = fields["chain_id"], fields["block_hash"], fields["log_index"]
    return Log(
        int(chain),
        int(fields["block_number"]),
        block_hash,
        fields["tx_hash"],
        int(fields["tx_index"]),
        int(index),
        fields["contract"],
        tuple(json.loads(fields["topics"])),
        fields["data"],
        f"{chain}:{block_hash}:{index}",
        fields.get("event"),
        None if args is None else json.loads(args),
        fields.get("traceparent"),
    )


def _content_of(fingerprint: str, description: str) -> str | None:
    """The content of the filter, which is stored after its fingerprint. Another filter may have replaced it since."""
    return description[len(fingerprint) + 1 :] if description.startswith(f"{fingerprint} ") else None


def head_of(fields: Mapping[str, str]) -> Head | None:
    """Reads the fields of a head; ``None`` if there is no journal yet, or none since a reset."""

    def number(name: str, missing: int) -> int:
        return int(fields.get(name) or missing)

    if "number" not in fields:
        return None
    fingerprint = fields.get("filter", "none")
    return Head(
        version=number("version", 1),
        epoch=fields.get("epoch", ""),
        epoch_reason=fields.get("epoch_reason", "begun"),
        number=int(fields["number"]),
        hash=fields.get("hash", ""),
        part=number("part", 0),
        final_number=number("final_number", -1),
        start_number=number("start_number", 0),
        first_number=int(fields["first_number"]) if fields.get("first_number") else None,
        filter=fingerprint,
        filter_content=_content_of(fingerprint, fields.get("filter_content", "")),
        added=number("added", 0),
    )
