"""One chain's source, reader and session, with retries."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeAlias, TypeVar

from .checkpoint import ReaderId, Tx
from .errors import ConsumerError
from .events import Decoder
from .filter import Asked, make_matches
from .options import Options, Progress
from .plan import Step, applied
from .position import State
from .reader import Found, Reader, ReaderOptions
from .redis_source import RedisSource
from .session import Heartbeats, Session, Superseded, is_same
from .source import Report, Source
from .sqlite_source import SqliteSource

A = TypeVar("A")

_LOGGER = logging.getLogger("event_ingestor")

_IDLE = 1.0
"""How long a reader waits for an entry before it looks at the head (seconds)."""

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
        self._unreported: State | None = None
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
            state = self._retrying(
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

    def next(self, state: State, saved: State) -> Found | None:
        """Looks at the stream; ``None`` when it is stopped.

        :param saved: the state that is stored, from which the next process would go on
        """
        found = self._retrying(lambda: self._reader.next(state))
        if found is not None and found.reconciled:
            # What is read again, by this process or the next one, must not be trimmed meanwhile.
            self._reported_at = float("-inf")
            is_lower = self._source.compare(found.state.position.id, saved.position.id) < 0
            self._report(found.state if is_lower else saved)
        elif found is not None and self._reported_at == float("-inf"):
            self._report(saved)
        return found

    def _retrying(self, use: Callable[[], A]) -> A | None:
        """Repeats what fails, until it succeeds, it is stopped, or an error says that it will not."""
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
        """Reports a failure that is repeated, and waits."""
        if self._options.on_warning is None:
            _LOGGER.warning("%s: %s: retrying", self._options.name, error)
        else:
            self._options.on_warning(error)
        self._failures += 1
        self._pause(backoff(self._failures))

    def save(self, following: State, saved: State) -> State:
        """Saves a state that needed no delivery from time to time. What the caller may have rolled back is not skipped by it.

        :returns: the state that is stored then
        """
        if time.monotonic() - self._saved_at < _INTERVAL or not _is_ahead(following, saved):
            return saved

        def save() -> State:
            with self.session.transaction() as tx:
                current = self.session.current(tx)
                if not is_same(current, saved):
                    # A COMMIT whose reply was lost may have succeeded.
                    return following if is_same(current, following) else saved
                self.session.save(tx, following)
            return following

        result = self._retrying(save)
        self._saved_at = time.monotonic()
        return saved if result is None else result

    def announce(self, saved: State, uncommitted: Sequence[Step]) -> None:
        """With an at-least-once checkpoint: marks the blocks of changes before they are delivered. A process that ends before it
        has committed may have handled them: the next one applies them again, or undoes them if they have gone.
        """
        marked = announced(saved, uncommitted)

        def save() -> None:
            with self.session.transaction() as tx:
                if not is_same(self.session.current(tx), marked):
                    self.session.save(tx, marked)

        if marked.stack != saved.stack:
            self._retrying(save)

    def rest(self, found: Found, saved: State) -> None:
        """After a look: reports the progress, publishes the position from time to time, and waits for more."""
        head, position, options = found.head, saved.position, self._options
        if head is not None:
            lag = max(head.number - position.block, 0)
            progress = Progress(options.chain, position.block, position.final, lag)
            if progress != self._progress:
                self._progress = progress
                if options.on_progress is not None:
                    options.on_progress(progress)
        self._report(saved)
        wait_after = found.wait_after
        if wait_after is not None and not self.is_stopped:
            self._retrying(lambda: self._source.changed(wait_after, _IDLE))

    def _report(self, state: State) -> None:
        """Publishes the position that is stored, not more often than once a second."""
        if not self._options.pinned:
            return
        self._unreported = state
        if time.monotonic() - self._reported_at >= _INTERVAL:
            self._retrying(self._report_now)

    def _report_now(self) -> None:
        if self._unreported is None:
            return
        position = self._unreported.position
        self._source.report(
            self._options.name,
            Report(position.id, position.offset, position.block, str(self._options.finality)),
        )
        self._unreported = None
        self._reported_at = time.monotonic()

    def close(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.stop()
        for end in (self._report_now, self.session.release, self._source.close):
            try:
                end()
            except Exception as error:
                _LOGGER.debug("%s: %s", self._options.name, error)


def announced(saved: State, uncommitted: Sequence[Step]) -> State:
    """A state with the blocks of delivered changes as pending."""
    stack = list(saved.stack)
    for kind, block, _, _ in uncommitted:
        known = next((i for i, one in enumerate(stack) if one.hash == block.hash), -1)
        if kind == "undo" and known >= 0:
            stack[known] = replace(stack[known], pending=True)
        # While the undoing of a block waits for its commit, its number is taken.
        elif kind == "apply" and not block.finalized and (not stack or stack[-1].number < block.number):
            stack.append(replace(applied(block), pending=True))
    return State(saved.position, tuple(stack))


def _is_ahead(state: State, saved: State) -> bool:
    one, other = state.position, saved.position
    return (
        one.id != other.id
        or one.final != other.final
        or one.epoch != other.epoch
        or one.filter != other.filter
        or len(state.stack) != len(saved.stack)
    )
