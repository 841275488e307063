"""Reads the stream of a chain in Redis: standalone, by Sentinel, or in a Cluster."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry

from .entry import Entry, head_of
from .errors import NotPermittedError, ReplicaError
from .source import Report, Snapshot, SourceUnavailable

RedisClient: TypeAlias = redis.Redis | RedisCluster
RedisTarget: TypeAlias = str | RedisClient | Callable[[], RedisClient]
"""A URL, a client, or a function that makes a client, for each connection anew."""

A = TypeVar("A")

_PATIENCE = 10.0
"""How long a command may take, without the time that it is meant to block (seconds)."""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _fields_of(reply: Any) -> Mapping[str, str]:
    """Text, whether the client decodes replies or not. In a transaction of a Cluster, it leaves pairs as a list."""
    fields = reply if isinstance(reply, Mapping) else dict(zip(reply[::2], reply[1::2], strict=True))
    for name in fields:
        if isinstance(name, str):
            return fields
        break
    return {_text(name): _text(value) for name, value in fields.items()}


def _entries_of(reply: Any) -> list[Entry]:
    if not reply:
        return []
    if isinstance(reply[0][0], str) and isinstance(reply[0][1], dict):
        return [Entry(*entry) for entry in reply]
    return [Entry(_text(id_), _fields_of(fields)) for id_, fields in reply]


def _is_replica(role: Any) -> bool:
    if isinstance(role, Mapping):
        return _text(role.get("role", role.get(b"role"))) == "slave"
    if isinstance(role, list | tuple):
        return _text(role[0]) == "slave"
    return "role:slave" in _text(role).splitlines()


class _Connection:
    """One connection, opened when it is needed, and opened anew after a failure: a factory can then read a new password."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._client: Any = None

    def _open(self, block: float) -> Any:
        target = self._target
        if callable(target):
            return target()
        if not isinstance(target, str):
            return target
        # This library retries on a new connection.
        return redis.Redis.from_url(
            target,
            decode_responses=True,
            protocol=2,
            socket_timeout=_PATIENCE + block,
            socket_connect_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )

    def use(self, command: Callable[[Any], A], block: float = 0.0) -> A:
        """:param block: how long the command is meant to block (seconds)"""
        try:
            if self._client is None:
                self._client = self._open(block)
            return command(self._client)
        except NoPermissionError:
            raise
        except (RedisError, OSError):
            self.close()
            raise

    def close(self) -> None:
        client, self._client = self._client, None
        # A client that was given is its owner's.
        if client is not None and client is not self._target:
            client.close()


class RedisSource:
    """The stream of a chain. ``prefix``: of its keys, as ``STREAM_PREFIX`` of the ingestor."""

    lowest = "0-0"

    def __init__(self, target: RedisTarget, chain: int, prefix: str) -> None:
        self._stream = f"{prefix}:{chain}"
        self._head_key = f"{{{self._stream}}}:head"
        self._readers_key = f"{{{self._stream}}}:readers"
        self._commands = _Connection(target)
        self._blocking = _Connection(target)
        self._role_command: tuple[str, ...] | None = None

    def compare(self, one: str, other: str) -> int:
        """Compares two ids: milliseconds, then a serial number."""
        if one == other:
            return 0
        return -1 if _parts_of(one) < _parts_of(other) else 1

    def _run(
        self, command: Callable[[Any], A], connection: _Connection | None = None, block: float = 0.0
    ) -> A:
        try:
            return (connection or self._commands).use(command, block)
        except NoPermissionError as error:
            raise NotPermittedError(str(error), self._stream) from error
        except (RedisError, OSError) as error:
            raise SourceUnavailable(f"Redis: {error}") from error

    def _find_role_command(self, client: Any) -> tuple[str, ...]:
        """Finds a command that tells the role. In a Cluster, the client itself asks masters only."""
        if isinstance(client, RedisCluster):
            return ()
        for command in (("ROLE",), ("INFO", "replication")):
            try:
                role = client.execute_command(*command)
            except NoPermissionError:
                continue
            if _is_replica(role):
                raise ReplicaError()
            return command
        raise NotPermittedError(
            "neither ROLE nor INFO is allowed, which tell a master from a replica", self._stream
        )

    def snapshot(self, known: Sequence[str], after: str, count: int, up_to: str | None = None) -> Snapshot:
        stream = self._stream

        def read(client: Any) -> list[Any]:
            if self._role_command is None:
                self._role_command = self._find_role_command(client)
            pipe = client.pipeline(transaction=True)
            pipe.hgetall(self._head_key)
            pipe.xlen(stream)
            pipe.xrange(stream, "-", "+", count=1)
            pipe.xrevrange(stream, "+", "-", count=1)
            for id_ in known:
                pipe.xrange(stream, id_, id_)
            if count > 0:
                pipe.xrange(stream, f"({after}", up_to or "+", count=count)
            if self._role_command:
                pipe.execute_command(*self._role_command)
            replies: list[Any] = pipe.execute()
            return replies

        replies = self._run(read)
        if self._role_command and _is_replica(replies[-1]):
            raise ReplicaError()
        first, last = _entries_of(replies[2]), _entries_of(replies[3])
        found = [_entries_of(reply) for reply in replies[4 : 4 + len(known)]]
        return Snapshot(
            head=head_of(_fields_of(replies[0])),
            length=replies[1],
            first=first[0].id if first else None,
            last=last[0].id if last else None,
            known=[entries[0] if entries else None for entries in found],
            page=_entries_of(replies[4 + len(known)]) if count > 0 else [],
        )

    def read(self, after: str, up_to: str, count: int) -> Sequence[Entry]:
        return _entries_of(
            self._run(lambda client: client.xrange(self._stream, f"({after}", up_to, count=count))
        )

    def read_back(self, from_: str, count: int) -> Sequence[Entry]:
        return _entries_of(
            self._run(lambda client: client.xrevrange(self._stream, from_, "-", count=count))
        )

    def changed(self, after: str, seconds: float) -> None:
        def wait(client: Any) -> None:
            limit = None
            if isinstance(client, redis.Redis):
                limit = client.connection_pool.connection_kwargs.get("socket_timeout")
            # A client that was given may give up before.
            block = seconds if limit is None else min(seconds, limit / 2)
            client.execute_command(
                "XREAD", "COUNT", 1, "BLOCK", max(int(block * 1000), 1), "STREAMS", self._stream, after
            )

        self._run(wait, self._blocking, seconds)

    def report(self, reader: str, report: Report) -> None:
        value = {**report._asdict(), "seen": int(time.time())}
        text = json.dumps(value, separators=(",", ":"))
        self._run(lambda client: client.hset(self._readers_key, reader, text))

    def close(self) -> None:
        self._commands.close()
        self._blocking.close()


def _parts_of(id_: str) -> tuple[int, int]:
    milliseconds, _, serial = id_.partition("-")
    return int(milliseconds), int(serial or 0)
