"""The state of one reader on one chain, and the right to advance it.

The stored position has an owner and a beat, which rises with each transaction. Each transaction locks the position and compares
both, so that two processes of one name never apply the same block twice. A process that finds another owner stands by, and takes
over when the beat has not risen for the length of the lease, or when the owner has left.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Generic

from .checkpoint import Checkpoint, ReaderId, Save, Tx
from .errors import ConsumerError
from .plan import Step, applied
from .position import AppliedBlock, PackedBlock, Position, State, pack, unpack

SHORTEST_BEAT = 0.1
"""The least time between two heartbeats (seconds)."""

KEPT = 100
"""So many states are remembered, of which one is stored: a caller may roll back several."""


class Superseded(Exception):
    """Another process has advanced the state."""


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


def is_same(one: State, other: State) -> bool:
    """Whether two states are equal, apart from the owner and the beat."""
    a, b = one.position, other.position
    if (a.id, a.identity, a.epoch, a.offset, a.final, a.block, a.filter) != (
        (b.id, b.identity, b.epoch, b.offset, b.final, b.block, b.filter)
    ):
        return False
    return one.stack is other.stack or list(map(_identity_of, one.stack)) == list(map(_identity_of, other.stack))


def marked(state: State, steps: Sequence[Step]) -> State:
    """A state with the blocks of changes marked as pending: with an at-least-once checkpoint, the caller may have handled a block
    although its position was not saved. The next process applies such a block again, or retracts it if it has gone.

    :param steps: the changes that were delivered after this state, without final blocks
    :raises ConsumerError: ``UNCOMMITTED`` if two of the blocks have the same number: only one of them can be stored
    """
    handled = {step.block.hash for step in steps}
    known = {block.hash for block in state.stack}
    stack = [replace(block, pending=True) if block.hash in handled else block for block in state.stack]
    for kind, block, _, _ in steps:
        if kind == "apply" and block.hash not in known:
            stack.append(replace(applied(block), pending=True))
    if len({block.number for block in stack}) < len(stack):
        raise ConsumerError(
            "UNCOMMITTED",
            "commit a change before the next one is taken: an at-least-once checkpoint cannot store two blocks of the same number",
        )
    return State(state.position, tuple(stack))


def rolled_back(name: str) -> ConsumerError:
    return ConsumerError(
        "ROLLED_BACK",
        f"{name}: the transaction of an earlier change was rolled back, so that its block is not stored: repeat that transaction, "
        "or call follow again",
    )


class Session(Generic[Tx]):
    """:param lease: how long an owner may be silent (seconds)"""

    def __init__(self, checkpoint: Checkpoint[Tx], reader: ReaderId, lease: float) -> None:
        self._checkpoint = checkpoint
        self._reader = reader
        self._lease = lease
        self._owner = str(uuid.uuid4())
        # The states that may be stored, by their beats: whether a transaction was committed may be unknown. The lock of the
        # position in the store excludes the other thread.
        self._saved: dict[int, State] = {}
        self.stored: State | None = None
        """The last state that is known to be stored. That of a transaction of the caller is not before it was read again."""

    def acquire(
        self,
        begin: Callable[[], Position | None],
        is_stopped: Callable[[], bool],
        pause: Callable[[float], None],
    ) -> State | None:
        """Waits for the right to read, and loads the state.

        :param begin: the position of a new reader; ``None``: not yet
        :returns: ``None`` if it is stopped, or if there is no position yet
        """
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

    def _take(self, found: Position | None, first: Position | None) -> State | None:
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
            state = State(position, tuple(map(unpack, checkpoint.blocks(tx, reader))))
        self._saved = {position.beat: state}
        self.stored = state
        return state

    def save(self, tx: Tx, following: State) -> None:
        """Saves a state in a transaction that is open.

        :raises Superseded: if another process has saved meanwhile
        """
        self._save(self._checkpoint, tx, self.current(tx), following)

    def _save(self, checkpoint: Checkpoint[Any], tx: Any, base: State, following: State) -> None:
        position = replace(following.position, owner=self._owner, beat=max(self._saved) + 1)
        remove, put = _difference(base.stack, following.stack)
        checkpoint.save(tx, self._reader, Save(position, remove, put))
        self._saved[position.beat] = State(position, following.stack)
        if len(self._saved) > KEPT:
            del self._saved[min(self._saved)]

    def current(self, tx: Tx) -> State:
        """The state that is stored, which an error of a transaction may have left unknown. It locks the position until the
        transaction ends.

        :raises Superseded: if another process reads now
        :raises ConsumerError: ``ROLLED_BACK`` if it is one that is not remembered any more
        """
        return self._current(self._checkpoint, tx)

    def _current(self, checkpoint: Checkpoint[Any], tx: Any) -> State:
        now = checkpoint.load(tx, self._reader)
        if now is None or now.owner != self._owner:
            raise Superseded()
        state = self._saved.get(now.beat)
        if state is None:
            raise rolled_back(self._reader.name)
        return state

    def transaction(self) -> AbstractContextManager[Tx]:
        """A transaction of the checkpoint. In an open one of the caller, it is a part of that."""
        return self._checkpoint.transaction()

    @property
    def in_transaction(self) -> bool:
        """Whether the caller has an open transaction of the checkpoint."""
        return self._checkpoint.in_transaction

    def refresh(self) -> None:
        """Reads which state is stored."""
        if self.in_transaction:
            return
        with self.transaction() as tx:
            self.stored = self.current(tx)

    def heartbeat(self, checkpoint: Checkpoint[Any]) -> None:
        """Shows other processes of this name that this one is alive.

        :param checkpoint: the same store by another connection
        """
        with checkpoint.transaction() as tx:
            state = self._current(checkpoint, tx)
            self.stored = state
            self._save(checkpoint, tx, state, state)

    def release(self) -> None:
        """Leaves, so that another process can take over at once."""
        if not self._saved:
            return
        checkpoint, reader = self._checkpoint, self._reader
        with checkpoint.transaction() as tx:
            now = checkpoint.load(tx, reader)
            if now is not None and now.owner == self._owner:
                checkpoint.save(tx, reader, Save(replace(now, owner="", beat=now.beat + 1), (), ()))
        self._saved = {}


class Heartbeats:
    """A thread that shows that this process is alive while the caller handles a block."""

    def __init__(self, session: Session[Any], checkpoint: Checkpoint[Any], lease: float) -> None:
        self._session = session
        self._checkpoint = checkpoint
        self._interval = max(lease / 3, SHORTEST_BEAT)
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
        self._checkpoint.close()

    def stop(self) -> None:
        self._stopped.set()
