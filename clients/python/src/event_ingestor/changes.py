"""The blocks of a chain as an iteration, for a caller that commits by itself."""

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Literal

from .checkpoint import Checkpoint, Tx
from .consumer import Consumer, Delivery, OpenSource, open_source
from .entry import Log
from .errors import ConsumerError, TakenOverError
from .events import Decoder, Event, EventItem
from .options import Options, Progress, check
from .plan import Finality
from .reader import FilterChange, From
from .redis_source import RedisTarget
from .session import KEPT, Handled, Saved, Superseded, marked


class _Iteration(Generic[Tx]):
    """The commits of one iteration."""

    def __init__(self, consumer: Consumer[Tx], options: Options[Tx], acquired: Saved) -> None:
        self.consumer = consumer
        self.is_closed = False
        self.last = acquired
        """The state after the last change that was committed, if no transaction was rolled back."""
        self._name = options.name
        self._is_at_least_once = options.checkpoint.at_least_once
        # The changes that were delivered at least once and are not known to be stored.
        self._marked: list[Delivery] = []
        # The serial numbers of changes whose commits included writes of the caller.
        self._bound: list[int] = []

    def deliver(self, step: Delivery) -> "Change[Tx] | None":
        """The next change; ``None`` when it is stopped. With an at-least-once checkpoint, its block is marked before.

        :raises ConsumerError: ``UNCOMMITTED``, ``ROLLED_BACK``
        """
        # A final block is never retracted.
        if self._is_at_least_once and not (step.kind == "apply" and step.block.finalized):
            self._marked.append(step)
            announced = Handled(step.kind, step.block)
            session = self.consumer.session
            if self.consumer.retrying(lambda: session.announce(announced, self._assert_is_last)) is None:
                return None
        return Change(self, step)

    def _assert_is_last(self, stored: Saved) -> None:
        if stored.serial < self.last.serial:
            raise self._rolled_back()

    def _rolled_back(self) -> ConsumerError:
        return ConsumerError(
            "ROLLED_BACK",
            f"{self._name}: the transaction of an earlier change was rolled back, so that its block is not stored: "
            "repeat that transaction, or call follow again",
        )

    def _committed(self) -> ConsumerError:
        return ConsumerError(
            "COMMITTED",
            f"{self._name}: this change is committed already: roll back what was written for it again, and go on with the next one",
        )

    def error_of(self, error: Superseded) -> ConsumerError:
        """The error of a caller."""
        return self._rolled_back() if error.is_own else TakenOverError(self._name)

    def _is_stored(self, stored: Saved, serial: int) -> bool:
        """Whether a change is stored.

        :raises ConsumerError: ``ROLLED_BACK`` if one before it that is not stored would be passed over
        """
        if any(stored.serial < bound < serial for bound in self._bound):
            raise self._rolled_back()
        return stored.serial >= serial

    def _bind(self, serial: int) -> None:
        """Notes that a transaction which commits this change includes writes of the caller."""
        self._bound = [*(bound for bound in self._bound if bound != serial), serial][-KEPT:]

    def _marked_after(self, after: Saved) -> Saved:
        """The state after a change. Later ones may have been handled."""
        later = [step for step in self._marked if step.after.serial > after.serial]
        return marked(after, [Handled(step.kind, step.block) for step in later])

    def _assert_open(self) -> None:
        if self.is_closed:
            raise ConsumerError(
                "CLOSED", f"{self._name}: this iteration has ended: call follow again, to go on"
            )

    def commit(self, after: Saved, tx: Tx | None) -> None:
        """Stores the state after a change.

        :param tx: the open transaction of the caller
        :raises ConsumerError: ``TAKEN_OVER``, ``ROLLED_BACK``, ``COMMITTED``, ``CLOSED``
        """
        self._assert_open()
        session, serial = self.consumer.session, after.serial
        has_writes = tx is not None or session.in_transaction or session.has_open_writes
        is_bound = has_writes or not self._is_at_least_once

        def following(stored: Saved) -> Saved | None:
            if self._is_stored(stored, serial):
                # A COMMIT whose reply was lost has succeeded: the caller's writes are stored with it.
                if has_writes and not self._is_at_least_once and serial in self._bound:
                    raise self._committed()
                return None
            if is_bound:
                self._bind(serial)
            return self._marked_after(after)

        try:
            # What the caller's connection has written in an open transaction is committed with it.
            _ = session.update(following) if tx is None else session.within(tx, following)
        except Superseded as error:
            raise self.error_of(error) from None
        self._done(after)

    @contextmanager
    def transaction(self, after: Saved) -> Iterator[Tx]:
        """A transaction that stores the state after a change at its end.

        :raises ConsumerError: ``TAKEN_OVER``, ``ROLLED_BACK``, ``COMMITTED``, ``CLOSED``
        """
        self._assert_open()
        session, serial = self.consumer.session, after.serial
        try:
            with session.transaction() as tx:
                # It locks the position: no other process applies the block meanwhile.
                if self._is_stored(session.current(tx), serial):
                    raise self._committed()
                self._bind(serial)
                yield tx
                saved = session.within(
                    tx, lambda stored: None if self._is_stored(stored, serial) else self._marked_after(after)
                )
            session.settle(saved)
        except Superseded as error:
            raise self.error_of(error) from None
        self._done(after)

    def _done(self, after: Saved) -> None:
        if after.serial > self.last.serial:
            self.last = after
        stored = self.consumer.session.stored.serial
        self._marked = [step for step in self._marked if step.after.serial > stored]


class Change(Generic[Tx]):
    """A block to apply, or one to retract."""

    __slots__ = (
        "_after",
        "_events",
        "_is_in_transaction",
        "_iteration",
        "chain",
        "finalized",
        "hash",
        "logs",
        "number",
        "timestamp",
        "type",
    )

    def __init__(self, iteration: _Iteration[Tx], step: Delivery) -> None:
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
        self._after = step.after
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
            ``ROLLED_BACK`` if the transaction of an earlier change was rolled back and not repeated; ``COMMITTED`` if the transaction
            is repeated although it was stored, so that its writes would be stored twice; ``CLOSED`` if the iteration has ended
        """
        if not self._is_in_transaction:
            self._iteration.commit(self._after, tx)

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Opens a transaction: ``with block.transaction() as tx: …``. It commits what is written by ``tx``, a connection of the
        checkpoint, together with the position. If the body raises, nothing is stored; the transaction may then be repeated.

        :raises ConsumerError: as ``commit``; ``COMMITTED`` if this change is committed already
        """
        with self._iteration.transaction(self._after) as tx:
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
        acquired = consumer.acquire()
        if acquired is None:
            return
        iteration = _Iteration(consumer, options, acquired)
        state, delivered = acquired, 0
        while not consumer.is_stopped:
            found = consumer.next(state)
            if found is None:
                return
            for step in found.steps:
                change = iteration.deliver(step)
                if change is None:
                    return
                delivered = step.after.serial
                yield change
                if consumer.is_stopped:
                    return
            state = found.state
            if iteration.last.serial >= delivered:
                consumer.save(state)
            consumer.rest(found, state if iteration.last.serial >= delivered else iteration.last)
    except Superseded as error:
        raise (TakenOverError(options.name) if iteration is None else iteration.error_of(error)) from None
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
