"""The blocks of a chain as an iteration, for a caller that commits by itself."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Literal, NamedTuple

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
from .session import KEPT, Superseded, is_same, marked, rolled_back


class _Attempt(NamedTuple):
    """A state that is stored, or may be."""

    serial: int
    """The last change before it."""
    state: State
    is_bound: bool
    """Whether writes of the caller are in the same transaction."""


class _Iteration(Generic[Tx]):
    """The commits of one iteration. Changes have serial numbers from 1 on."""

    def __init__(self, consumer: Consumer[Tx], options: Options[Tx], acquired: State) -> None:
        self.consumer = consumer
        self.is_closed = False
        self.state = acquired
        """The state after the last change that was committed, if no transaction was rolled back."""
        self.delivered = 0
        self._serial = 0
        self._name = options.name
        self._is_at_least_once = options.checkpoint.at_least_once
        self._uncommitted: list[tuple[int, Step]] = []
        self._attempts = deque([_Attempt(0, acquired, False)], maxlen=KEPT)

    @property
    def is_committed(self) -> bool:
        """Whether all that was delivered is committed, if no transaction was rolled back."""
        return self._serial == self.delivered

    def deliver(self, step: Step, after: State) -> "Change[Tx]":
        """The next change. With an at-least-once checkpoint, its block is marked before.

        :raises ConsumerError: ``UNCOMMITTED``, ``ROLLED_BACK``
        """
        # A final block is never retracted.
        if self._is_at_least_once and not (step.kind == "apply" and step.block.finalized):
            self._uncommitted.append((self.delivered + 1, step))
            announced = marked(self.state, [step for _, step in self._uncommitted])
            if not is_same(announced, self.state):
                self.consumer.retrying(lambda: self._announce(announced))
        self.delivered += 1
        return Change(self, self.delivered, step, after)

    def _announce(self, announced: State) -> None:
        session = self.consumer.session
        with session.transaction() as tx:
            if self._serial_of(session.current(tx)) < self._serial:
                raise rolled_back(self._name)
            self._attempts.append(_Attempt(self._serial, announced, False))
            session.save(tx, announced)

    def advance(self, state: State) -> None:
        """Replaces the state after the last change: entries that need no delivery were read meanwhile."""
        if self.is_committed and self.consumer.save(state, self.state):
            self._attempts.append(_Attempt(self._serial, state, False))
            self.state = self.consumer.session.stored = state

    def _serial_of(self, stored: State) -> int:
        """The last change that is stored."""
        return next((one.serial for one in reversed(self._attempts) if is_same(one.state, stored)), 0)

    def _is_stored(self, tx: Tx, serial: int) -> bool:
        """Whether a change is stored. Locks the position: no other process applies its block meanwhile.

        :raises ConsumerError: ``ROLLED_BACK`` if that would be overtaken
        """
        stored = self._serial_of(self.consumer.session.current(tx))
        if any(one.is_bound and stored < one.serial < serial for one in self._attempts):
            raise rolled_back(self._name)
        return stored >= serial

    def _save(self, tx: Tx, serial: int, state: State, is_bound: bool) -> None:
        """Stores the state after a change, unless that of a later one is stored."""
        if self._is_stored(tx, serial):
            return
        if self._is_at_least_once:
            # Later changes may have been handled.
            state = marked(state, [step for later, step in self._uncommitted if later > serial])
        self._attempts.append(_Attempt(serial, state, is_bound))
        self.consumer.session.save(tx, state)

    def assert_open(self) -> None:
        """:raises ConsumerError: ``CLOSED``"""
        if self.is_closed:
            raise ConsumerError(
                "CLOSED", f"{self._name}: this iteration has ended: call follow again, to go on"
            )

    def commit(self, serial: int, state: State, tx: Tx | None) -> None:
        """Stores the state after a change.

        :param tx: the open transaction of the caller
        :raises ConsumerError: ``TAKEN_OVER``, ``ROLLED_BACK``, ``CLOSED``
        """
        self.assert_open()
        session = self.consumer.session
        is_durable = tx is None and not session.in_transaction
        try:
            if tx is None:
                # What the caller's connection has written in an open transaction is committed with it.
                with session.transaction() as own:
                    self._save(own, serial, state, not self._is_at_least_once)
            else:
                self._save(tx, serial, state, True)
        except Superseded:
            raise TakenOverError(self._name) from None
        self._done(serial, state, is_durable)

    @contextmanager
    def transaction(self, serial: int, state: State) -> Iterator[Tx]:
        """A transaction that stores the state after a change at its end.

        :raises ConsumerError: ``TAKEN_OVER``, ``ROLLED_BACK``, ``COMMITTED``, ``CLOSED``
        """
        self.assert_open()
        session = self.consumer.session
        is_durable = not session.in_transaction
        try:
            with session.transaction() as tx:
                # Also when a COMMIT whose reply was lost has succeeded.
                if self._is_stored(tx, serial):
                    raise ConsumerError(
                        "COMMITTED", f"{self._name}: this change is committed already: go on with the next one"
                    )
                self._attempts.append(_Attempt(serial, state, True))
                yield tx
                self._save(tx, serial, state, True)
        except Superseded:
            raise TakenOverError(self._name) from None
        self._done(serial, state, is_durable)

    def _done(self, serial: int, state: State, is_durable: bool) -> None:
        if serial < self._serial:
            return
        self._serial, self.state = serial, state
        self._uncommitted = [one for one in self._uncommitted if one[0] > serial]
        # What a transaction of the caller has stored is read when that has ended.
        if is_durable:
            self.consumer.session.stored = state


class Change(Generic[Tx]):
    """A block to apply, or one to retract."""

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
        """``"apply"``: write what the block says. ``"undo"``: a reorg has replaced the block: retract what was written for it."""
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
        """The logs decoded by the option ``events``, without those that are no valid encoding. Empty without that option."""
        if self._events is None:
            self._events = self._iteration.consumer.decoder.decode(self.logs)
        return self._events

    def commit(self, tx: Tx | None = None) -> None:
        """Stores the position after this change: neither it nor what came before is delivered again.

        :param tx: a connection of the checkpoint's database with an open transaction, in which the block was applied. The position
            becomes durable when the caller commits that transaction. ``None``: a transaction of its own
        :raises ConsumerError: ``TAKEN_OVER`` if another process of this name reads now, and gets the changes since the last commit;
            ``ROLLED_BACK`` if the transaction of an earlier change was rolled back and not repeated; ``CLOSED`` if the iteration has
            ended
        """
        if not self._is_in_transaction:
            self._iteration.commit(self._serial, self._after, tx)

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Opens a transaction: ``with block.transaction() as tx: …``. It commits what is written by ``tx``, a connection of the
        checkpoint, together with the position. If the body raises, nothing is stored; the transaction may then be repeated.

        :raises ConsumerError: as ``commit``; ``COMMITTED`` if this change is committed already
        """
        with self._iteration.transaction(self._serial, self._after) as tx:
            self._is_in_transaction = True
            try:
                yield tx
            finally:
                self._is_in_transaction = False


def iterate(
    options: Options[Tx], decoder: Decoder, open_source: OpenSource
) -> Generator[Change[Tx], None, None]:
    """``follow`` with options that were checked."""
    consumer = Consumer(options, decoder, open_source)
    iteration: _Iteration[Tx] | None = None
    try:
        state = consumer.acquire()
        if state is None:
            return
        iteration = _Iteration(consumer, options, state)
        while not consumer.is_stopped:
            found = consumer.next(state)
            if found is None:
                return
            steps = found.steps
            for i, step in enumerate(steps):
                yield iteration.deliver(step, found.state if i == len(steps) - 1 else State(step.position, step.stack))
                if consumer.is_stopped:
                    return
            state = found.state
            iteration.advance(state)
            consumer.rest(found, state if iteration.is_committed else iteration.state)
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
    """Iterates over the changes of one chain, in order: each block with logs that match, and each that a reorg replaced. What is not
    committed is delivered again by the next call.

    An iteration ends when ``stop`` is set, or when it is closed; otherwise it waits for the next block. It retries connections and
    transactions that fail. Use it, its changes and the connections of its checkpoint in one thread at a time.

    :param source: the URL of Redis (``redis://``, ``rediss://``), a ``redis.Redis`` or ``RedisCluster``, or a function that makes one
        for each connection (Sentinel, a password that rotates)
    :param chain: the id of the chain
    :param name: the name of this reader, 1 to 100 letters, digits, and ``. _ : -``. It identifies the stored position. Of two
        processes of one name, one reads and the other stands by
    :param from_: where a new name begins: ``"earliest"``, ``"now"``, or the number of a block. An error if the stream does not have
        that block
    :param finality: ``"latest"``: each block at once, and its retraction when a reorg replaces it. ``"finalized"``: final blocks
        only. A number: blocks with so many blocks above them
    :param checkpoint: where the position is stored: ``sqlite(…)``, ``postgres(…)``, ``memory()``, or an implementation of
        ``Checkpoint``
    :param events: deliver only logs of these events, decoded in ``block.events``: signatures such as
        ``Transfer(address indexed from, address indexed to, uint256 value)``, or items of an ABI in JSON. Needs the extra ``decode``
    :param addresses: deliver only logs of these contracts: ``0x`` and 40 hexadecimal digits each
    :param sqlite: the path of the ingestor's SQLite file, in place of ``source``
    :param prefix: ``STREAM_PREFIX`` of the ingestor
    :param pinned: whether to publish the position, so that the ingestor keeps the entries that were not read
    :param lease: how long a process may be silent before another one of its name takes over (seconds)
    :param on_filter_changed: called when the ingestor's filter has changed and still includes what this reader asks for, or when that
        is unknown. Raise to stop
    :param on_progress: called when blocks were read, also blocks without logs
    :param on_warning: called with each error that is retried. By default it is logged to the logger ``event_ingestor``
    :param stop: ends the iteration when it is set, within a second, or after the block in hand
    :returns: the changes; call ``commit`` of each, or use its ``transaction``
    :raises ConsumerError: at once with the code ``OPTION``; while iterating with ``TRIMMED``, ``RESET``, ``FILTER``, ``REPLICA``,
        ``PERMISSION``, ``VERSION``, ``TAKEN_OVER``, ``ROLLED_BACK`` or ``UNCOMMITTED``. The message says what to do
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
