"""How far a reader is, and which blocks it has applied that a reorg may still replace."""

import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

from .entry import Log, RawBlock


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a reader. It is stored with what the reader applied, in one transaction."""

    id: str
    """The last entry that was consumed; the lowest id before the first."""
    identity: str
    """Which log that entry adds or removes; ``""`` before the first."""
    epoch: str
    offset: int
    """How many entries of this epoch come up to and including that entry."""
    final: int
    """Blocks up to here are applied for good, or not wanted: entries of them are skipped."""
    block: int
    """Blocks up to here are complete."""
    filter: str
    """The fingerprint of the ingestor's filter."""
    owner: str
    """The process that reads under this name; ``""`` when none does."""
    beat: int
    """Rises with each transaction of any process."""


@dataclass(frozen=True, slots=True)
class AppliedBlock(RawBlock):
    """A block that was applied and is not final."""

    skipped: bool = False
    """Its handler was skipped: it is not retracted."""
    pending: bool = False
    """It was delivered, and may have been handled: the block is applied again, or retracted if it has gone."""


@dataclass(frozen=True, slots=True)
class State:
    """What a reader has done."""

    position: Position
    stack: tuple[AppliedBlock, ...]
    """The applied blocks that are not final, lowest first."""


class PackedBlock(NamedTuple):
    """An applied block as one text, as a checkpoint stores it."""

    number: int
    data: str


def to_json(value: object) -> str:
    """JSON as JavaScript writes it: both languages can continue each other's position."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def position_text(position: Position) -> str:
    """A position as a checkpoint stores it."""
    return to_json(asdict(position))


def position_of(text: str) -> Position:
    """Reads a stored position. Fields of a later release are ignored."""
    fields = json.loads(text)
    return Position(**{name: fields[name] for name in Position.__slots__})


def pack(block: AppliedBlock) -> PackedBlock:
    """Packs an applied block."""
    return PackedBlock(
        block.number,
        to_json(
            {
                "chain": block.chain,
                "hash": block.hash,
                "timestamp": block.timestamp,
                "skipped": block.skipped,
                "pending": block.pending,
                "logs": [
                    [log.index, log.tx_hash, log.tx_index, log.contract, log.topics, log.data, log.event, log.args]
                    for log in block.logs
                ],
            }
        ),
    )


def unpack(packed: PackedBlock) -> AppliedBlock:
    """Unpacks an applied block."""
    number, data = packed
    fields = json.loads(data)
    chain, block_hash = fields["chain"], fields["hash"]
    return AppliedBlock(
        chain=chain,
        number=number,
        hash=block_hash,
        timestamp=fields["timestamp"],
        finalized=False,
        logs=tuple(
            Log(
                chain,
                number,
                block_hash,
                tx_hash,
                tx_index,
                index,
                contract,
                tuple(topics),
                data,
                f"{chain}:{block_hash}:{index}",
                event,
                args,
            )
            for index, tx_hash, tx_index, contract, topics, data, event, args in fields["logs"]
        ),
        skipped=fields["skipped"],
        pending=fields["pending"],
    )
