"""One chain's source, reader and session, with retries."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from .checkpoint import ReaderId, Tx
from .entry import Head, RawBlock
from .errors import ConsumerError
from .events import Decoder
from .filter import Asked, make_matches
from .options import Options, Progress
from .position import Position, State
from .reader import Reader, ReaderOptions
from .redis_source import RedisSource
from .session import Heartbeats, Saved, Session, Superseded
from .source import Report, Source
from .sqlite_source import SqliteSource

A = TypeVar("A")


class Delivery(NamedTuple):
    """A change, and the state after it."""

    kind: Literal["apply", "undo"]
    block: RawBlock
    after: Saved


class Look(NamedTuple):
    """What a read of the stream found, with the serial numbers of the states."""

    steps: Sequence[Delivery]
    state: Saved
    head: Head | None
    wait_after: str | None
    """Nothing more can be done before there is an entry after this one, or the head changes."""

_LOGGER = logging.getLogger("event_ingestor")

_IDLE = 1.0
"""How long a reader waits for an entry before it reads the head again (seconds)."""

_INTERVAL = 1.0
"""How often a position is published, and saved when nothing had to be delivered (seconds)."""


def backoff(attempt: int) -> float:
    """The delay before an attempt, growing from 0.1 s to 10 s, with jitter (seconds)."""
    return min(0.1 * 2.0 ** min(attempt - 1, 10), 10.0) * (0.8 + 0.4 * random.random())


OpenSource: TypeAlias = Callable[[Options[Any]], Source]
"""Opens the stream that the options name."""


def open_source(options: Options[Any]) -> Source:
    if options.sqlite is not None:
        return SqliteSource(options.sqlite, options.chain)
    assert options.source is not None
    return RedisSource(options.source, options.chain, options.prefix)


class Consumer(Generic[Tx]):
    def __init__(self, options: Options[Tx], decoder: Decoder, open_source: OpenSource) -> None:
        asked = Asked(options.addresses, decoder.topics)
        self.decoder = decoder
        self.session = Session(options.checkpoint, ReaderId(options.name, options.chain), options.lease)
        self._options = options
        self._source = open_source(options)
        self._reader = Reader(
            self._source,
            ReaderOptions(
                chain=options.chain,
                name=options.name,
                asked=asked,
                finality=options.finality,
                matches=make_matches(asked),
                pinned=options.pinned,
                on_filter_changed=options.on_filter_changed,
            ),
        )
        self._heartbeats: Heartbeats | None = None
        self._reported_at = float("-inf")
        # The last state that was read, and the last one that a change must lead to.
        self._serial = 0
        self._delivered = 0
        # The store was set back: entries after this position are needed until a state from this serial number on is stored.
        self._set_back: tuple[int, Position] | None = None
        self._saved_at = float("-inf")
        self._failures = 0
        self._progress: Progress | None = None

    @property
    def is_stopped(self) -> bool:
        stop = self._options.stop
        return stop is not None and stop.is_set()

    def _pause(self, seconds: float) -> None:
        """Sleeps, shorter if it is stopped."""
        stop = self._options.stop
        if stop is None:
            time.sleep(seconds)
        else:
            stop.wait(seconds)

    def acquire(self) -> Saved | None:
        """Waits for this process's turn, and loads the state; ``None`` when it is stopped."""
        self._reader.restart()
        while True:
            state = self.retrying(
                lambda: self.session.acquire(
                    lambda: self._reader.begin(self._options.from_), lambda: self.is_stopped, self._pause
                )
            )
            if state is not None:
                second = self._options.checkpoint.second()
                if second is not None:
                    self._heartbeats = Heartbeats(self.session, second, self._options.lease)
                return state
            if self.is_stopped:
                return None
            # There is no journal yet.
            self._pause(_IDLE)

    @property
    def has_heartbeats(self) -> bool:
        """Whether another connection reads, from time to time, which state is stored."""
        return self._heartbeats is not None

    def next(self, state: State) -> Look | None:
        """Reads the stream; ``None`` when it is stopped."""
        found = self.retrying(lambda: self._reader.next(state))
        if found is None:
            return None
        before = self._serial
        self._serial += max(len(found.steps), 1)
        if found.steps:
            self._delivered = self._serial
        end = Saved(found.state.position, found.state.stack, self._serial)
        if found.reconciled:
            self._set_back = (end.serial, self._lower(end.position))
            # What is read again, by this process or the next one, must not be trimmed meanwhile.
            self._reported_at = float("-inf")
        if self._reported_at == float("-inf"):
            self._report()
        steps = [
            Delivery(kind, block, end if serial == end.serial else Saved(position, stack, serial))
            for serial, (kind, block, position, stack) in enumerate(found.steps, before + 1)
        ]
        return Look(steps, end, found.head, found.wait_after)

    def retrying(self, use: Callable[[], A]) -> A | None:
        """Retries until it succeeds, it is stopped, or an error says that another attempt cannot succeed."""
        while True:
            try:
                result = use()
                self._failures = 0
                return result
            except (ConsumerError, Superseded):
                raise
            except Exception as error:
                if self.is_stopped:
                    return None
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Reports a failure that is retried, and waits."""
        if self._options.on_warning is None:
            _LOGGER.warning("%s: %s: retrying", self._options.name, error)
        else:
            self._options.on_warning(error)
        self._failures += 1
        self._pause(backoff(self._failures))

    def save(self, state: Saved) -> None:
        """Saves a state that needed no delivery, from time to time, if the last change before it is known to be stored."""
        session, delivered = self.session, self._delivered
        is_due = time.monotonic() - self._saved_at >= _INTERVAL
        # In a transaction of the caller, it would be rolled back with that, or commit it.
        is_open = session.in_transaction or session.has_open_writes
        if not is_due or is_open or not _is_ahead(state, session.stored):
            return
        if session.stored.serial < delivered and not self.has_heartbeats:
            self.retrying(session.refresh)
        # In a transaction of the caller that is open, another connection would wait for its end.
        if session.stored.serial < delivered:
            return
        self.retrying(lambda: session.update(lambda stored: None if stored.serial < delivered else state))
        self._saved_at = time.monotonic()

    def rest(self, found: Look, state: State) -> None:
        """After a read: reports the progress, publishes the position from time to time, and waits for more.

        :param state: the one after all that was delivered and committed
        """
        head, position, options = found.head, state.position, self._options
        if head is not None:
            lag = max(head.number - position.block, 0)
            progress = Progress(options.chain, position.block, position.final, lag)
            if progress != self._progress:
                self._progress = progress
                if options.on_progress is not None:
                    options.on_progress(progress)
        self._report()
        wait_after = found.wait_after
        if wait_after is not None and not self.is_stopped:
            self.retrying(lambda: self._source.changed(wait_after, _IDLE))

    def _report(self) -> None:
        """Publishes the position that is stored, not more often than once a second."""
        if self._options.pinned and time.monotonic() - self._reported_at >= _INTERVAL:
            self.retrying(self._report_now)

    def _lower(self, position: Position) -> Position:
        """This position, or the lower one after which entries are needed since the store was set back."""
        if self._set_back is None:
            return position
        serial, lower = self._set_back
        if self.session.stored.serial >= serial:
            return position
        return lower if self._source.compare(lower.id, position.id) < 0 else position

    def _report_now(self) -> None:
        position = self._lower(self.session.stored.position)
        self._source.report(
            self._options.name,
            Report(position.id, position.offset, position.block, str(self._options.finality)),
        )
        self._reported_at = time.monotonic()

    def _leave(self) -> None:
        """Releases the position. In a transaction of the checkpoint, that is a part of it."""
        if self._heartbeats is None:
            self.session.release()
        elif self.session.in_transaction:
            self._heartbeats.stop()
            self.session.release()
        else:
            self._heartbeats.leave()

    def _report_last(self) -> None:
        if self._options.pinned:
            self._report_now()

    def close(self) -> None:
        for end in (self._leave, self._report_last, self._source.close):
            try:
                end()
            except Exception as error:
                _LOGGER.debug("%s: %s", self._options.name, error)


def _is_ahead(state: State, saved: State) -> bool:
    one, other = state.position, saved.position
    return (
        one.id != other.id
        or one.final != other.final
        or one.epoch != other.epoch
        or one.filter != other.filter
        or len(state.stack) != len(saved.stack)
    )
