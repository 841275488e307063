"""Reads the stream of one chain from a state on: the next changes, and the state after them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from .backlog import Backlog, extend
from .entry import Head, Log, identity_of
from .errors import ResetError, TrimmedError, VersionError
from .filter import Asked, assert_included, assert_still_included
from .plan import Finality, Heights, Step, View, limit_of, lower, plan, whole_number
from .position import Position, State
from .reconcile import reconcile, standing_of
from .source import KNOWN_VERSION, Snapshot, Source, first_number_of

From: TypeAlias = Literal["earliest", "now"] | int
"""Where a new reader begins."""


@dataclass(frozen=True, slots=True)
class FilterChange:
    """A filter of the ingestor that replaced another one."""

    chain: int
    before: str
    """The fingerprint of the filter that was replaced."""
    after: str
    """The fingerprint of the new one."""
    content: str | None
    """The new filter as JSON, ``[addresses, topics]``, if the ingestor says so."""


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    chain: int
    name: str
    asked: Asked
    finality: Finality
    matches: Callable[[Log], bool]
    pinned: bool
    """Whether its position is published."""
    on_filter_changed: Callable[[FilterChange], None] | None


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one read of the stream."""

    steps: Sequence[Step]
    state: State
    reconciled: bool
    """Whether these steps follow from a store that was set back."""
    head: Head | None
    """``None`` while there is no journal."""
    wait_after: str | None
    """Nothing more can be done before there is an entry after this one, or the head changes."""


PAGE_SIZE = 1000
"""The entries that are read at once."""


class Reader:
    def __init__(self, source: Source, options: ReaderOptions) -> None:
        self._source = source
        self._options = options
        self.restart()

    def restart(self) -> None:
        """Begins from a state that was loaded."""
        self._forget()
        # Nothing was found yet from a state that another process may have saved.
        self._is_first = True

    def _forget(self) -> None:
        """Forgets what it knows of later entries."""
        self._backlog: Backlog | None = None
        # A block that waits for finality or confirmations, and the head's block of which only a part is written.
        self._held: float | None = None
        self._part_of: str | None = None
        self._view_size = PAGE_SIZE

    def begin(self, from_: From) -> Position | None:
        """The position of a new reader; ``None`` while there is no journal.

        :raises TrimmedError: if entries from there on are not in the stream
        """
        chain, source = self._options.chain, self._source
        snapshot = source.snapshot((), source.lowest, 0)
        head = snapshot.head
        if head is None:
            return None
        self._check_version(head)
        if head.filter_content is not None:
            assert_included(chain, head.filter_content, self._options.asked)
        start = Position(
            id=source.lowest,
            identity="",
            epoch=head.epoch,
            offset=head.added - snapshot.length,
            final=-1,
            block=-1,
            filter=head.filter,
            owner="",
            beat=0,
        )
        if from_ == "now":
            newest = source.read_back(snapshot.last, 1) if snapshot.last is not None else ()
            if newest:
                start = replace(start, id=newest[0].id, identity=identity_of(newest[0]))
            return replace(start, offset=head.added, final=head.number, block=whole_number(head))
        block = head.start_number if from_ == "earliest" else from_
        first_number = first_number_of(head, snapshot.length)
        if block < first_number:
            raise TrimmedError(chain, f"from block {block} on was asked for", first_number)
        return replace(start, final=block - 1, block=block - 1)

    def _check_version(self, head: Head) -> None:
        if head.version > KNOWN_VERSION:
            raise VersionError(head.version, KNOWN_VERSION)

    def _check_filter(self, head: Head, position: Position) -> None:
        if head.filter == position.filter:
            return
        options = self._options
        if options.on_filter_changed is None:
            assert_still_included(options.chain, head.filter_content, options.asked)
        elif head.filter_content is not None:
            assert_included(options.chain, head.filter_content, options.asked)
        if options.on_filter_changed is not None:
            options.on_filter_changed(
                FilterChange(options.chain, position.filter, head.filter, head.filter_content)
            )

    def next(self, state: State) -> Found:
        """Reads the stream once.

        :raises ConsumerError: ``TRIMMED``, ``RESET``, ``FILTER``, ``VERSION``
        :raises SourceUnavailable: if another attempt may succeed
        """
        source, options = self._source, self._options
        position = state.position
        is_extended = False
        while True:
            backlog = self._known(position)
            range_ = None if backlog is None else backlog.next(self._view_size)
            # A reader that waits first looks for new entries.
            is_waiting = self._is_stuck and (not is_extended or self._waiting(state) is not None)
            snapshot = source.snapshot(
                known=(position.id,) if backlog is None else (position.id, backlog.id),
                after=position.id,
                up_to=None if range_ is None else range_.to,
                count=0 if is_waiting else PAGE_SIZE if backlog is None else backlog.count,
            )
            head, page = snapshot.head, snapshot.page
            last = source.lowest if snapshot.last is None else snapshot.last
            if head is None:
                return Found((), state, False, None, last)
            current = self._checked(state, snapshot, head)
            if current is None:
                self._forget()
                found = reconcile(
                    source, options.chain, state, head, snapshot, options.matches, options.pinned
                )
                if found is None:
                    continue
                self._is_first = False
                return Found(found.steps, found.state, True, head, None)
            if backlog is not None:
                end = snapshot.known[1]
                if end is None or identity_of(end) != backlog.identity:
                    self._forget()
                    continue
            is_cut_page = backlog is None and len(page) == PAGE_SIZE
            if is_cut_page or (is_waiting and not is_extended):
                is_extended = True
                extended = extend(source, backlog, position.id, head, last, PAGE_SIZE)
                if extended is None:
                    self._forget()
                    continue
                self._backlog, minimum = extended
                # After a reorg, a lower block may be the next one.
                if self._held is not None:
                    self._held = min(self._held, minimum)
                # What was read page by page is valid if the last entry of it is still there in the next snapshot.
                if backlog is None or self._backlog.id != backlog.id or self._waiting(current) is None:
                    continue
            waiting = self._waiting(current)
            if waiting is not None:
                return Found((), waiting, False, head, last)

            horizon = head if backlog is None else backlog.head
            view = View(
                page,
                horizon,
                is_at_horizon=range_ is None or range_.is_at_horizon,
                later_minimum=float("inf") if range_ is None else range_.later_minimum,
            )
            planned = plan(current, view, options)
            if planned.is_cut:
                self._view_size *= 2
                continue
            self._view_size = PAGE_SIZE
            self._held = planned.held
            is_unmoved = not planned.steps and planned.state.position.id == position.id
            self._part_of = horizon.hash if is_unmoved and planned.held is None and page else None
            if backlog is None and self._is_stuck:
                self._backlog = Backlog.of_page(page, head)
            is_at_end = backlog is None or (is_unmoved and self._is_stuck)
            return Found(planned.steps, planned.state, False, head, last if is_at_end else None)

    @property
    def _is_stuck(self) -> bool:
        """Whether a block waits."""
        return self._held is not None or self._part_of is not None

    def _known(self, position: Position) -> Backlog | None:
        """What is known of the entries after a position."""
        if self._backlog is not None:
            self._backlog = self._backlog.from_(position.id, self._source.compare)
            if self._backlog.is_consumed:
                self._forget()
        return self._backlog

    def _checked(self, state: State, snapshot: Snapshot, head: Head) -> State | None:
        """The state with the epoch and the filter of the head; ``None`` if the store was set back."""
        options, position = self._options, state.position
        self._check_version(head)
        standing = standing_of(position, snapshot, self._source)
        if standing == "reset":
            raise ResetError(options.chain, options.name)
        if standing == "trimmed":
            needed = f"entries after block {position.block} are needed"
            raise TrimmedError(options.chain, needed, first_number_of(head, snapshot.length))
        self._check_filter(head, position)
        # A block that was about to be applied, or retracted, may be on either side of the position.
        is_uncertain = self._is_first and any(block.pending for block in state.stack)
        return None if standing == "set back" or is_uncertain else _renew(state, head)

    def _waiting(self, state: State) -> State | None:
        """The state while all that could be delivered next waits for the end of a block, or for a higher head."""
        if self._backlog is None:
            return None
        horizon: Heights = self._backlog.head
        if self._part_of is not None and horizon.part > 0 and horizon.hash == self._part_of:
            return state
        limit = limit_of(self._options.finality, horizon)
        if self._held is None or limit >= self._held:
            return None
        # Blocks below the one that waits are complete.
        final = max(state.position.final, lower(horizon.final_number, limit))
        position = replace(state.position, final=final, block=lower(whole_number(horizon), limit))
        return State(position, tuple(block for block in state.stack if block.number > final))


def _renew(state: State, head: Head) -> State:
    """The state with the epoch and the filter of a head."""
    if state.position.epoch == head.epoch and state.position.filter == head.filter:
        return state
    return State(replace(state.position, epoch=head.epoch, filter=head.filter), state.stack)
