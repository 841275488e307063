"""Writes a stream as an ingestor does."""

import json
from collections.abc import Callable
from typing import Any

from conftest import Server


def hash_of(name: str) -> str:
    """The hash of a block that is named by its number and fork: ``7a``."""
    return "0x" + name.encode().hex().rjust(64, "0")


class Stream:
    """:param logs: how many logs a block has
    :param fields: of each entry
    """

    def __init__(self, server: Server, logs: int = 2, chain: int = 1, **fields: str) -> None:
        self._chain = chain
        self._key = f"events:{chain}"
        self._fields = fields
        self._client: Any = server.client
        self._logs = logs
        self._blocks: list[str] = []
        self._id = 0
        self._added = 0
        self._epoch = ("e", "begun")
        self.final = -1

    def _entry(self, pipe: Any, name: str, index: int, removed: bool, **others: str) -> None:
        self._id += 1
        self._added += 1
        fields = {
            "chain_id": self._chain,
            "block_number": int(name[:-1]),
            "block_hash": hash_of(name),
            "tx_hash": hash_of(name),
            "log_index": index,
            "contract": "0x" + "aa" * 20,
            "topics": json.dumps(["0x" + "01" * 32]),
            "data": "0x",
            "timestamp": 1_700_000_000 + int(name[:-1]),
            "tx_index": 0,
            "removed": "true" if removed else "false",
            **self._fields,
            **others,
        }
        pipe.xadd(self._key, fields, id=f"{self._id}-0")

    def write(self, *moves: str, final: int | None = None, **fields: str) -> None:
        """Pushes blocks; a name with ``-`` is removed.

        :param final: the number of the final block
        :param fields: of these entries
        """
        pipe = self._client.pipeline(transaction=True)
        for move in moves:
            name = move.lstrip("-")
            if move.startswith("-"):
                assert self._blocks.pop() == name
            else:
                self._blocks.append(name)
            indexes = range(self._logs)
            for index in reversed(indexes) if move.startswith("-") else indexes:
                self._entry(pipe, name, index, move.startswith("-"), **fields)
        if final is not None:
            self.final = final
        top = self._blocks[-1] if self._blocks else "0a"
        head = {
            "version": 2,
            "epoch": self._epoch[0],
            "epoch_reason": self._epoch[1],
            "number": int(top[:-1]),
            "hash": hash_of(top),
            "part": 0,
            "final_number": self.final,
            "start_number": 1,
            "first_number": 1,
            "filter": "none",
            "added": self._added,
        }
        pipe.hset(f"{{{self._key}}}:head", mapping=head)
        pipe.execute()

    def save(self) -> Callable[[], None]:
        """Copies the stream. What is returned sets it back to the copy: the ingestor then writes other blocks in a new epoch."""
        entries, blocks = self._client.xrange(self._key), list(self._blocks)
        at = (self._id, self._added)

        def restore() -> None:
            self._client.delete(self._key)
            for id_, fields in entries:
                self._client.xadd(self._key, fields, id=id_)
            self._blocks = blocks
            self._id, self._added = at
            self._epoch = (f"{self._epoch[0]}e", "lost")

        return restore
