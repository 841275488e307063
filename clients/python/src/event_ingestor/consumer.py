"""One chain's source, reader and session, with retries."""

import logging
import random
import time
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

from .checkpoint import ReaderId, Tx
from .errors import ConsumerError
from .events import Decoder
from .filter import Asked, make_matches
from .options import Options, Progress
from .position import Position, State
from .reader import Found, Reader, ReaderOptions
from .redis_source import RedisSource
from .session import Heartbeats, Session, Superseded, is_same
from .source import Report, Source
from .sqlite_source import SqliteSource

A = TypeVar("A")

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
        # The position that was stored when the store was set back, and the lower one from which on it is read again.
        self._set_back: tuple[Position, Position] | None = None
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

    def acquire(self) -> State | None:
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

    def next(self, state: State) -> Found | None:
        """Reads the stream; ``None`` when it is stopped."""
        found = self.retrying(lambda: self._reader.next(state))
        if found is not None and found.reconciled:
            stored = self.session.stored
            assert stored is not None
            # What is read again, by this process or the next one, must not be trimmed meanwhile.
            self._set_back = (stored.position, found.state.position)
            self._reported_at = float("-inf")
            self._report()
        elif found is not None and self._reported_at == float("-inf"):
            self._report()
        return found

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

    def save(self, following: State, saved: State) -> bool:
        """Saves a state that needed no delivery, from time to time, unless the one before it is not stored, or not known to be: its
        transaction is open, or was rolled back.

        :param saved: the state before it
        :returns: whether it is stored now
        """
        session, is_due = self.session, time.monotonic() - self._saved_at >= _INTERVAL
        if not is_due or session.in_transaction or not _is_ahead(following, saved):
            return False

        def is_known() -> bool:
            return session.stored is not None and is_same(session.stored, saved)

        if not is_known() and not self.has_heartbeats:
            self.retrying(session.refresh)
        # In a transaction of the caller that is open, another connection would wait for its end.
        if not is_known():
            return False

        def save() -> bool:
            with session.transaction() as tx:
                session.save(tx, following)
            return True

        is_saved = self.retrying(save) is True
        self._saved_at = time.monotonic()
        return is_saved

    def rest(self, found: Found, state: State) -> None:
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

    def _report_now(self) -> None:
        stored = self.session.stored
        if stored is None:
            return
        position = stored.position
        if self._set_back is not None:
            before, lower = self._set_back
            # Until the last change of the reconciliation is committed.
            if (position.id, position.epoch) != (before.id, before.epoch):
                self._set_back = None
            elif self._source.compare(lower.id, position.id) < 0:
                position = lower
        self._source.report(
            self._options.name,
            Report(position.id, position.offset, position.block, str(self._options.finality)),
        )
        self._reported_at = time.monotonic()

    def _report_last(self) -> None:
        if self.session.stored is not None and self._options.pinned:
            self.session.refresh()
            self._report_now()

    def close(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.stop()
        for end in (self._report_last, self.session.release, self._source.close):
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
