"""The state of one reader on one chain, and the right to advance it.

The stored position has an owner and a beat, which rises with each transaction. Each transaction locks the position and compares
both, so that two processes of one name never apply the same block twice. A process that finds another owner stands by, and takes
over when the beat has not risen for the length of the lease, or when the owner has left.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, TypeAlias

from .checkpoint import Checkpoint, ReaderId, Save, Tx
from .entry import RawBlock
from .errors import ConsumerError, OptionError
from .plan import applied
from .position import AppliedBlock, PackedBlock, Position, State, pack, unpack

_LOGGER = logging.getLogger("event_ingestor")

SHORTEST_BEAT = 0.1
"""The least time between two heartbeats (seconds)."""

_PATIENCE = 1.0
"""How long an iteration that ends waits for its own transaction (seconds)."""

KEPT = 100
"""So many states are remembered, of which one is stored: a caller may roll back several."""


@dataclass(frozen=True, slots=True)
class Saved(State):
    """A state that is stored, or that may be."""

    serial: int
    """Rises with the states that this process reads; 0: the one that it began with."""


Following: TypeAlias = Callable[[Saved], Saved | None]
"""What a transaction saves, from the state that is stored; ``None``: nothing."""


class Handled(NamedTuple):
    """A block that is delivered, so that the caller may have handled it."""

    kind: Literal["apply", "undo"]
    block: RawBlock


class Superseded(Exception):
    """Another process has advanced the state, or this one's own is another one than it saved.

    :param is_own: whether the state is this process's own: a caller has rolled back more than is remembered, or the store was set back
    """

    def __init__(self, is_own: bool) -> None:
        super().__init__(
            "the stored position is not the last one" if is_own else "another process of this name reads now"
        )
        self.is_own = is_own


def _identity_of(block: AppliedBlock) -> tuple[str, bool, bool]:
    """Two blocks with the same identity are stored alike."""
    return block.hash, block.skipped, block.pending


def _difference(
    from_: Sequence[AppliedBlock], to: Sequence[AppliedBlock]
) -> tuple[list[int], list[PackedBlock]]:
    """The numbers of blocks to delete, and the blocks to write, between two stacks."""
    if from_ is to:
        return [], []
    before, after = set(map(_identity_of, from_)), set(map(_identity_of, to))
    remove = [block.number for block in from_ if _identity_of(block) not in after]
    return remove, [pack(block) for block in to if _identity_of(block) not in before]


def _is_same(one: Sequence[AppliedBlock], other: Sequence[AppliedBlock]) -> bool:
    """Whether two stacks are stored alike."""
    return one is other or list(map(_identity_of, one)) == list(map(_identity_of, other))


def marked(state: Saved, blocks: Sequence[Handled]) -> Saved:
    """A state with the blocks of changes marked as pending: with an at-least-once checkpoint, the caller may have handled a block
    although its position was not saved. The next process applies such a block again, or retracts it if it has gone.

    :param blocks: of the changes that were delivered after this state
    :raises ConsumerError: ``UNCOMMITTED`` if two of the blocks have the same number: only one of them can be stored
    """
    handled = {block.hash for _, block in blocks}
    stack = {
        block.hash: replace(block, pending=True) if block.hash in handled else block for block in state.stack
    }
    # A block may be applied, retracted, and applied again.
    for kind, block in blocks:
        if kind == "apply" and not block.finalized and block.hash not in stack:
            stack[block.hash] = replace(applied(block), pending=True)
    if len({block.number for block in stack.values()}) < len(stack):
        raise ConsumerError(
            "UNCOMMITTED",
            "commit a change before the next one is taken: an at-least-once checkpoint cannot store two blocks of the same number",
        )
    return Saved(state.position, tuple(stack.values()), state.serial)


class Session(Generic[Tx]):
    """:param lease: how long an owner may be silent (seconds)"""

    def __init__(self, checkpoint: Checkpoint[Tx], reader: ReaderId, lease: float) -> None:
        self._checkpoint = checkpoint
        self._reader = reader
        self._lease = lease
        self._owner = str(uuid.uuid4())
        # The states that may be stored, by their beats: whether a transaction was committed may be unknown. The lock of the
        # position in the store excludes the other thread.
        self._saved: dict[int, Saved] = {}
        self._beat = 0
        self._stored: Saved | None = None

    @property
    def stored(self) -> Saved:
        """The last state that is known to be stored. That of a transaction of the caller is not before it was read again."""
        if self._stored is None:
            raise Superseded(False)
        return self._stored

    def acquire(
        self,
        begin: Callable[[], Position | None],
        is_stopped: Callable[[], bool],
        pause: Callable[[float], None],
    ) -> Saved | None:
        """Waits for the right to read, and loads the state.

        :param begin: the position of a new reader; ``None``: not yet
        :returns: ``None`` if it is stopped, or if there is no position yet
        :raises OptionError: if the caller has begun a transaction by itself, which this would commit
        """
        if self.has_open_writes:
            raise OptionError("checkpoint: its connection has an open transaction: commit it, or roll it back, before you begin")
        seen: tuple[str, int] | None = None
        seen_at = 0.0
        while not is_stopped():
            with self._checkpoint.transaction() as tx:
                found = self._checkpoint.load(tx, self._reader)
            first = begin() if found is None else None
            if found is None and first is None:
                return None
            is_free = found is None or found.owner in ("", self._owner)
            now = ("", 0) if found is None else (found.owner, found.beat)
            if seen != now:
                seen, seen_at = now, time.monotonic()
            if is_free or time.monotonic() - seen_at >= self._lease:
                taken = self._take(found, first)
                if taken is not None:
                    return taken
            pause(min(1.0, self._lease / 4))
        return None

    def _take(self, found: Position | None, first: Position | None) -> Saved | None:
        """Takes over a position that is still as it was found."""
        checkpoint, reader = self._checkpoint, self._reader
        with checkpoint.transaction() as tx:
            now = checkpoint.load(tx, reader)
            if (now and (now.owner, now.beat)) != (found and (found.owner, found.beat)):
                return None
            base = now or first
            assert base is not None
            position = replace(base, owner=self._owner, beat=(now.beat if now else 0) + 1)
            checkpoint.save(tx, reader, Save(position, (), ()))
            state = Saved(position, tuple(map(unpack, checkpoint.blocks(tx, reader))), 0)
        self._beat = position.beat
        self._saved = {position.beat: state}
        self._stored = state
        return state

    def settle(self, saved: Saved) -> None:
        """Remembers that a state is stored, unless it is a part of an open transaction. Those before it never will be."""
        if self.in_transaction:
            return
        self._stored = saved
        for beat in list(self._saved):
            if beat < saved.position.beat:
                del self._saved[beat]

    def within(self, tx: Tx, following: Following) -> Saved:
        """Saves a state in a transaction that is open. The position is locked until that ends.

        :param following: from the state that is stored, which an error of a transaction may have left unknown; ``None``: saves nothing
        :returns: the state that is stored then
        :raises Superseded: if another process reads now
        """
        base = self.current(tx)
        state = following(base)
        return base if state is None else self._save(self._checkpoint, tx, base, state)

    def _save(self, checkpoint: Checkpoint[Any], tx: Any, base: Saved, following: Saved) -> Saved:
        self._beat += 1
        position = replace(following.position, owner=self._owner, beat=self._beat)
        saved = replace(following, position=position)
        # Before it is saved: the reply may be lost.
        self._saved[position.beat] = saved
        for beat in list(self._saved):
            if len(self._saved) <= KEPT:
                break
            if beat != base.position.beat:
                del self._saved[beat]
        remove, put = _difference(base.stack, following.stack)
        checkpoint.save(tx, self._reader, Save(position, remove, put))
        return saved

    def current(self, tx: Tx) -> Saved:
        """The state that is stored. It locks the position until the transaction ends.

        :raises Superseded: if another process reads now, or if it is one that is not remembered any more
        """
        return self._current(self._checkpoint, tx)

    def _current(self, checkpoint: Checkpoint[Any], tx: Any) -> Saved:
        now = checkpoint.load(tx, self._reader)
        is_own = now is not None and now.owner == self._owner
        state = self._saved.get(now.beat) if now is not None and is_own else None
        if state is None:
            raise Superseded(is_own)
        return state

    def update(self, following: Following) -> Saved:
        """Saves a state in a transaction of its own, or of the caller if that has one open.

        :param following: as of ``within``
        """
        with self.transaction() as tx:
            saved = self.within(tx, following)
        self.settle(saved)
        return saved

    def announce(self, handled: Handled, check: Callable[[Saved], None]) -> Saved:
        """Marks the block of a change that is delivered next.

        :param check: raises if it must not be delivered
        """

        def following(stored: Saved) -> Saved | None:
            check(stored)
            announced = marked(stored, [handled])
            return None if _is_same(announced.stack, stored.stack) else announced

        return self.update(following)

    def transaction(self) -> AbstractContextManager[Tx]:
        """A transaction of the checkpoint. In an open one of the caller, it is a part of that."""
        return self._checkpoint.transaction()

    @property
    def in_transaction(self) -> bool:
        """Whether the caller has an open transaction of the checkpoint."""
        return self._checkpoint.in_transaction

    @property
    def has_open_writes(self) -> bool:
        """Whether a transaction of its own would commit one that the caller has begun by itself."""
        return self._checkpoint.has_open_writes

    def refresh(self) -> None:
        """Reads which state is stored."""
        if not self.in_transaction and not self.has_open_writes:
            self.update(lambda _: None)

    def heartbeat(self, checkpoint: Checkpoint[Any]) -> None:
        """Shows other processes of this name that this one is alive.

        :param checkpoint: the same store by another connection
        """
        with checkpoint.transaction() as tx:
            stored = self._current(checkpoint, tx)
            self._stored = stored
            self._save(checkpoint, tx, stored, stored)

    def release(self, checkpoint: Checkpoint[Any] | None = None) -> None:
        """Reads which state is stored, and leaves, so that another process can take over at once; when the lease has ended, if the
        caller has a transaction open that this would commit.

        :param checkpoint: the same store by another connection
        """
        checkpoint = checkpoint or self._checkpoint
        if self._stored is None or checkpoint.has_open_writes:
            return
        is_part = checkpoint.in_transaction
        with checkpoint.transaction() as tx:
            stored = self._current(checkpoint, tx)
            left = replace(stored.position, owner="", beat=stored.position.beat + 1)
            checkpoint.save(tx, self._reader, Save(left, (), ()))
        if not is_part:
            self._stored = stored


class Heartbeats:
    """A thread that shows that this process is alive while the caller handles a block."""

    def __init__(self, session: Session[Any], checkpoint: Checkpoint[Any], lease: float) -> None:
        self._session = session
        self._checkpoint = checkpoint
        self._interval = max(lease / 3, SHORTEST_BEAT)
        self._is_leaving = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="event_ingestor heartbeats", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            # The next transaction of the reader fails for the same reason.
            try:
                self._session.heartbeat(self._checkpoint)
            except Exception:
                continue
        try:
            if self._is_leaving:
                self._session.release(self._checkpoint)
        except Exception as error:
            _LOGGER.debug("%s", error)
        self._checkpoint.close()

    def stop(self) -> None:
        self._stopped.set()

    def leave(self) -> None:
        """Releases the position, and waits for that, but not long: it may wait for a transaction of the caller, who waits for this."""
        self._is_leaving = True
        self.stop()
        self._thread.join(_PATIENCE)
