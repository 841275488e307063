"""Event Ingestor's stream in the reader's own database: whole blocks, in order, exactly once, retracted when a reorg replaces them."""

from .changes import Change, follow
from .checkpoint import Checkpoint, ReaderId, Save
from .checkpoints.at_least_once import at_least_once
from .checkpoints.memory import memory
from .checkpoints.postgres import postgres, postgres_ddl
from .checkpoints.sqlite import sqlite, sqlite_ddl
from .entry import Log
from .errors import (
    ConsumerError,
    FilterError,
    NotPermittedError,
    OptionError,
    ReplicaError,
    ResetError,
    TakenOverError,
    TrimmedError,
    VersionError,
)
from .events import Event, EventItem
from .options import Progress
from .plan import Finality
from .position import PackedBlock, Position
from .reader import FilterChange, From
from .redis_source import RedisTarget

__all__ = [
    "Change",
    "Checkpoint",
    "ConsumerError",
    "Event",
    "EventItem",
    "FilterChange",
    "FilterError",
    "Finality",
    "From",
    "Log",
    "NotPermittedError",
    "OptionError",
    "PackedBlock",
    "Position",
    "Progress",
    "ReaderId",
    "RedisTarget",
    "ReplicaError",
    "ResetError",
    "Save",
    "TakenOverError",
    "TrimmedError",
    "VersionError",
    "at_least_once",
    "follow",
    "memory",
    "postgres",
    "postgres_ddl",
    "sqlite",
    "sqlite_ddl",
]
