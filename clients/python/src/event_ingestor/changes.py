"""The blocks of a chain as an iteration, for a caller that commits by itself."""

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Literal

from .checkpoint import Checkpoint, Tx
from .consumer import Consumer, OpenSource, open_source
from .entry import Log
from .errors import ConsumerError, TakenOverError
from .events import Decoder, Event, EventItem
from .options import Options, Progress, check
from .plan import Finality, Step
from .position import State
from .reader import FilterChange, From
from .redis_source import RedisTarget
from .session import Superseded, is_same


class _Iteration(Generic[Tx]):
    """What the changes of one iteration share."""

    def __init__(self, consumer: Consumer[Tx], name: str, state: State) -> None:
        self.consumer = consumer
        self.name = name
        self.saved = state
        """The last state that was committed."""
        self.saved_serial = 0
        self.is_closed = False

    def assert_open(self) -> None:
        if self.is_closed:
            raise ConsumerError(
                "CLOSED", f"{self.name}: this iteration has ended: call follow again, to go on"
            )


class Change(Generic[Tx]):
    """A block to apply, or one to undo."""

    __slots__ = (
        "_after",
        "_events",
        "_is_in_transaction",
        "_iteration",
        "_serial",
        "chain",
        "finalized",
        "hash",
        "logs",
        "number",
        "timestamp",
        "type",
    )

    def __init__(self, iteration: _Iteration[Tx], serial: int, step: Step, after: State) -> None:
        block = step.block
        self.type: Literal["apply", "undo"] = step.kind
        """``apply``: the block is new. ``undo``: a reorg has replaced it: retract what was written for it."""
        self.chain = block.chain
        self.number = block.number
        self.hash = block.hash
        self.timestamp = block.timestamp
        """Unix seconds."""
        self.finalized = block.finalized
        """Whether no reorg can replace it any more."""
        self.logs: tuple[Log, ...] = block.logs
        """The logs that match, in the order of the block."""
        self._events: list[Event] | None = None
        self._iteration = iteration
        self._serial = serial
        self._after = after
        self._is_in_transaction = False

    def __repr__(self) -> str:
        return f"<{self.type} block {self.number} {self.hash} of chain {self.chain}: {len(self.logs)} logs>"

    @property
    def events(self) -> Sequence[Event]:
        """The logs decoded by ``events``, without those that are no encoding of their event. Empty without ``events``."""
        if self._events is None:
            self._events = self._iteration.consumer.decoder.decode(self.logs)
        return self._events

    @property
    def _is_committed(self) -> bool:
        return self._iteration.saved_serial >= self._serial

    def commit(self, tx: Tx | None = None) -> None:
        """Stores the position after this change: it, and what came before, is not delivered again.

        :param tx: a connection with an open transaction, in which the change was applied: it becomes durable together with it.
            Without it, in a transaction of its own
        :raises ConsumerError: ``TAKEN_OVER`` if another process of this name reads now: the changes since the last commit are
            delivered there
        """
        if self._is_in_transaction or self._is_committed:
            return
        self._iteration.assert_open()
        session = self._iteration.consumer.session
        try:
            if tx is None:
                with session.transaction() as own:
                    session.save(own, self._after)
            else:
                session.save(tx, self._after)
        except Superseded:
            raise TakenOverError(self._iteration.name) from None
        self._done()

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """A transaction to write by: ``with block.transaction() as tx: …``. At its end the position is stored and all of it is
        committed; if the body raises, nothing is.

        :raises ConsumerError: ``TAKEN_OVER`` if another process of this name reads now; ``COMMITTED`` if this change is committed
        """
        iteration = self._iteration
        iteration.assert_open()
        session = iteration.consumer.session
        try:
            with session.transaction() as tx:
                # Locks the position: no other process applies this block meanwhile.
                current = session.current(tx)
                # A COMMIT whose reply was lost may have succeeded.
                if self._is_committed or is_same(current, self._after):
                    raise ConsumerError(
                        "COMMITTED",
                        f"block {self.number} of chain {self.chain} is committed already: go on with the next one",
                    )
                self._is_in_transaction = True
                try:
                    yield tx
                finally:
                    self._is_in_transaction = False
                session.save(tx, self._after)
        except Superseded:
            raise TakenOverError(iteration.name) from None
        self._done()

    def _done(self) -> None:
        self._iteration.saved = self._after
        self._iteration.saved_serial = self._serial


def iterate(
    options: Options[Tx], decoder: Decoder, open_source: OpenSource
) -> Generator[Change[Tx], None, None]:
    consumer = Consumer(options, decoder, open_source)
    iteration: _Iteration[Tx] | None = None
    try:
        state = consumer.acquire()
        if state is None:
            return
        iteration = _Iteration(consumer, options.name, state)
        serial = 0
        uncommitted: list[Step] = []
        while not consumer.is_stopped:
            found = consumer.next(state, iteration.saved)
            if found is None:
                return
            steps = found.steps
            for i, step in enumerate(steps):
                if iteration.saved_serial == serial:
                    uncommitted = []
                serial += 1
                if options.checkpoint.at_least_once:
                    uncommitted.append(step)
                    consumer.announce(iteration.saved, uncommitted)
                after = found.state if i == len(steps) - 1 else State(step.position, step.stack)
                yield Change(iteration, serial, step, after)
                if consumer.is_stopped:
                    return
            state = found.state
            # Only what was committed is saved on the way.
            if iteration.saved_serial == serial:
                iteration.saved = consumer.save(state, iteration.saved)
            consumer.rest(found, iteration.saved)
    except Superseded:
        raise TakenOverError(options.name) from None
    finally:
        if iteration is not None:
            iteration.is_closed = True
        consumer.close()


def follow(
    source: RedisTarget | None = None,
    *,
    chain: int,
    name: str,
    from_: From,
    finality: Finality,
    checkpoint: Checkpoint[Tx],
    events: Sequence[EventItem] | None = None,
    addresses: Sequence[str] = (),
    sqlite: str | os.PathLike[str] | None = None,
    prefix: str = "events",
    pinned: bool = True,
    lease: float = 10.0,
    on_filter_changed: Callable[[FilterChange], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_warning: Callable[[Exception], None] | None = None,
    stop: threading.Event | None = None,
) -> Generator[Change[Tx], None, None]:
    """The changes of one chain, in order: each block with logs that match, and each that a reorg replaced. What is not committed is
    delivered again to the next iteration.

    :param source: the URL of Redis, a ``redis.Redis`` or ``RedisCluster``, or a function that makes one (Sentinel, a password that
        rotates)
    :param chain: the chain's id
    :param name: whose position this is. Two processes of one name take turns: one reads, the other stands by
    :param from_: where a new name begins: ``"earliest"``, ``"now"``, or a block. An error if that block is not in the stream
    :param finality: ``"latest"``: at once, and undone when a reorg replaces it. ``"finalized"``: final blocks only. A number: so many
        blocks above it
    :param checkpoint: where the position is stored: ``sqlite(…)``, ``postgres(…)`` or ``memory()``
    :param events: only logs of these events are delivered, decoded in ``block.events``
    :param addresses: only logs of these contracts are delivered
    :param sqlite: the path of the ingestor's SQLite file, in place of ``source``
    :param prefix: ``STREAM_PREFIX`` of the ingestor
    :param pinned: whether the position is published, so that the ingestor keeps what was not read
    :param lease: how long a process may be silent before another one of its name takes over (seconds)
    :param on_filter_changed: called when the ingestor's filter has changed and still includes what is asked for, or is unknown. Raise
        to stop
    :param on_progress: called when blocks were read, also without logs
    :param on_warning: called with each failure that is repeated; by default it is logged to ``event_ingestor``
    :param stop: ends the iteration when it is set, after the block in hand; within a second
    :raises ConsumerError: its message says what to do, and its ``code`` is one of ``OPTION``, ``TRIMMED``, ``RESET``, ``FILTER``,
        ``REPLICA``, ``PERMISSION``, ``VERSION``, ``TAKEN_OVER``
    """
    options = Options(
        source=source,
        sqlite=None if sqlite is None else os.fspath(sqlite),
        prefix=prefix,
        chain=chain,
        name=name,
        from_=from_,
        finality=finality,
        checkpoint=checkpoint,
        events=events,
        addresses=addresses,
        pinned=pinned,
        lease=lease,
        on_filter_changed=on_filter_changed,
        on_progress=on_progress,
        on_warning=on_warning,
        stop=stop,
    )
    return follow_from(open_source, options)


def follow_from(open_source: OpenSource, options: Options[Tx]) -> Generator[Change[Tx], None, None]:
    """``follow`` of a stream that is opened by a given function."""
    check(options)
    return iterate(options, Decoder(options.events), open_source)
