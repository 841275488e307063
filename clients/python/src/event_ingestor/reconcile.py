"""After the store was set back (a failover to a lagging replica, an older copy of the data): finds which applied blocks the stream
no longer has, and where to resume.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from .entry import Entry, Head, Log, identity_of, is_removal, log_of, number_of
from .errors import TrimmedError
from .plan import Step, after, runs_of
from .position import Position, State
from .source import Snapshot, Source, first_number_of

Standing: TypeAlias = Literal["continues", "empty", "trimmed", "reset", "set back"]
"""How a position relates to the stream."""

_PAGE_SIZE = 1000


def standing_of(position: Position, snapshot: Snapshot, source: Source) -> Standing:
    """Compares a position with a snapshot whose first known entry is that of the position.

    Where the entry is missing, the number of entries that were trimmed tells whether it was trimmed or lost.
    """
    head = snapshot.head
    if head is None:
        return "empty"
    is_new_epoch = position.epoch != head.epoch
    if is_new_epoch and head.epoch_reason == "reset":
        return "reset"
    gone = head.added - snapshot.length
    known = snapshot.known[0]
    if known is not None and identity_of(known) == position.identity:
        return "continues"
    if is_new_epoch or (snapshot.first is not None and source.compare(snapshot.first, position.id) <= 0):
        return "set back"
    # An earlier version of the ingestor does not count.
    if gone == position.offset or (gone < 0 and position.id == source.lowest):
        return "continues"
    return "trimmed" if gone > position.offset else "set back"


def _tail_above(source: Source, last: str | None, final: int) -> tuple[list[Entry], Entry | None]:
    """The entries after the last one that adds a block at or below ``final``, in order, and that one; or all of them."""
    tail: list[Entry] = []
    from_ = last
    while from_ is not None:
        page = source.read_back(from_, _PAGE_SIZE)
        # The lower end of a page is the upper end of the next one.
        for entry in page if not tail else page[1:]:
            if not is_removal(entry) and number_of(entry) <= final:
                return tail[::-1], entry
            tail.append(entry)
        from_ = page[-1].id if len(page) == _PAGE_SIZE else None
    return tail[::-1], None


class Reconciled(NamedTuple):
    steps: Sequence[Step]
    """The blocks to retract, and the new position after the last of them."""
    state: State


class _Survivor(NamedTuple):
    """A block that the tail leaves, with the position after it."""

    hash: str
    matches: bool
    is_cut: bool
    """Whether its first entries were trimmed."""
    begin: str
    """The id of its first entry."""
    end: Position


def reconcile(
    source: Source,
    chain: int,
    state: State,
    head: Head,
    snapshot: Snapshot,
    matches: Callable[[Log], bool],
    pinned: bool,
) -> Reconciled | None:
    """Folds the tail of the stream, keeps the applied blocks that it has, retracts the others, and resumes after the last one kept.

    :returns: ``None`` if the stream has changed meanwhile: another snapshot is needed
    :raises TrimmedError: if entries above the final block are not in the stream
    """
    position = state.position
    first, length = snapshot.first, snapshot.length
    first_number = first_number_of(head, length)
    entries, below = _tail_above(source, snapshot.last, position.final)
    # Some of it was trimmed between the snapshot and its reading.
    if below is None and len(entries) < length:
        return None

    def trimmed() -> TrimmedError:
        why = f"entries after block {position.final} are needed again"
        return TrimmedError(chain, why, first_number)

    is_incomplete = below is None and first_number > position.final + 1
    # Without a set-back, what comes before the position is read again only for a block that must be applied again.
    is_kept = standing_of(position, snapshot, source) == "continues"
    # Only final blocks are trimmed, and what a pinned reader has not read is kept.
    is_below = first is not None and source.compare(first, position.id) <= 0
    is_read = is_kept or is_below or (pinned and head.added - length <= position.offset)
    if is_incomplete and not is_read:
        raise trimmed()
    start = replace(
        position,
        epoch=head.epoch,
        filter=head.filter,
        id=source.lowest if below is None else below.id,
        identity="" if below is None else identity_of(below),
        # Counted from the end: what lies before may have been trimmed meanwhile.
        offset=head.added - len(entries),
    )
    end = start
    surviving: list[_Survivor] = []
    for i, run in enumerate(runs_of(entries)):
        end = after(end, run)
        if not run.removal:
            is_wanted = run.number > position.final and any(matches(log_of(entry)) for entry in run.entries)
            is_cut = is_incomplete and i == 0 and run.number < first_number
            surviving.append(_Survivor(run.hash, is_wanted, is_cut, run.entries[0].id, end))
        elif surviving and surviving[-1].hash == run.hash:
            surviving.pop()
    if head.part > 0 and surviving and surviving[-1].hash == head.hash:
        surviving.pop()
    stack = tuple(block for block in state.stack if block.number > position.final)
    kept = 0
    # An applied block whose entries were trimmed is still there if no later entry has its number or a lower one.
    lowest = min([first_number, *map(number_of, entries)]) if is_incomplete else -1
    while kept < len(stack) and stack[kept].number < lowest:
        # It would have to be applied again.
        if stack[kept].pending:
            raise trimmed()
        kept += 1
    following = start
    for survivor in surviving:
        known = stack[kept] if kept < len(stack) and stack[kept].hash == survivor.hash else None
        if known is not None:
            kept += 1
        # It is applied, or applied again.
        if survivor.matches if known is None else known.pending:
            if survivor.is_cut:
                raise trimmed()
            is_kept = is_kept and source.compare(survivor.begin, position.id) > 0
            break
        following = survivor.end
    if is_kept and source.compare(following.id, position.id) < 0:
        following = replace(position, epoch=head.epoch, filter=head.filter)
    steps: list[Step] = []
    for i in range(len(stack) - 1, kept - 1, -1):
        top = stack[i]
        stack = stack[:i]
        # Until the last one is retracted, the old position stays, with its epoch: a consumer that ends between two of them
        # reconciles again.
        if not top.skipped:
            at = replace(following, block=position.block) if i == kept else position
            steps.append(Step("undo", top, at, stack))
    return Reconciled(steps, State(following, stack))
