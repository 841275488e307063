"""What a reader does about the entries that it has read: which blocks it retracts and applies, and its position then. Pure.

The stream is the journal of a stack: an entry is added on top, and removed from the top. A block survives
if no later entry has its number or a lower one: every later entry is above a block that is still there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, TypeAlias

from .entry import Entry, Log, RawBlock, hash_of, identity_of, is_removal, log_of, number_of
from .position import AppliedBlock, Position, State

Finality: TypeAlias = Literal["latest", "finalized"] | int
"""Which blocks are delivered: all, only final ones, or those with so many blocks above them."""


class Wanted(Protocol):
    """What a reader asks for."""

    @property
    def finality(self) -> Finality: ...
    @property
    def matches(self) -> Callable[[Log], bool]: ...


class Heights(Protocol):
    """The part of a head that a plan needs."""

    @property
    def number(self) -> int: ...
    @property
    def hash(self) -> str: ...
    @property
    def part(self) -> int: ...
    @property
    def final_number(self) -> int: ...


@dataclass(frozen=True, slots=True)
class View:
    """The entries in hand."""

    entries: Sequence[Entry]
    """The entries after the position. The last block may be cut."""
    horizon: Heights
    """The head of the journal at the end of these entries, or of a later page."""
    is_at_horizon: bool
    """Whether these entries go up to the horizon."""
    later_minimum: float
    """The lowest block number of the entries between these and the horizon; infinite without any."""


class Step(NamedTuple):
    """One change, and the state after it."""

    kind: Literal["apply", "undo"]
    block: RawBlock
    position: Position
    stack: tuple[AppliedBlock, ...]
    """The applied blocks after it that are not final."""


@dataclass(frozen=True, slots=True)
class Plan:
    steps: Sequence[Step]
    state: State
    """The state after all of them, and after entries that need no handler."""
    held: int | None
    """The number of the first block that must wait for finality or confirmations."""
    is_cut: bool
    """Nothing could be done, because these entries are a part of one block."""


class Run(NamedTuple):
    """Successive entries of one block."""

    hash: str
    number: int
    removal: bool
    entries: list[Entry]


def runs_of(entries: Sequence[Entry]) -> list[Run]:
    runs: list[Run] = []
    last_hash: str | None = None
    last_removal = False
    for entry in entries:
        block_hash, removal = hash_of(entry), is_removal(entry)
        if block_hash == last_hash and removal == last_removal:
            runs[-1].entries.append(entry)
        else:
            runs.append(Run(block_hash, number_of(entry), removal, [entry]))
            last_hash, last_removal = block_hash, removal
    return runs


def whole_number(head: Heights) -> int:
    """The highest block of the journal that is complete."""
    return head.number if head.part == 0 else head.number - 1


def limit_of(finality: Finality, horizon: Heights) -> float:
    """The highest block that may be delivered."""
    if finality == "latest":
        return math.inf
    if finality == "finalized":
        return horizon.final_number
    return whole_number(horizon) - finality


def lower(one: int, other: float) -> int:
    """The lower one of a block number and a limit, which may be infinite."""
    return one if one <= other else int(other)


def after(position: Position, run: Run) -> Position:
    """The position after a run."""
    last = run.entries[-1]
    return replace(
        position, id=last.id, identity=identity_of(last), offset=position.offset + len(run.entries)
    )


def _block_of(run: Run, finalized: bool, matches: Callable[[Log], bool]) -> RawBlock:
    fields = run.entries[0].fields
    return RawBlock(
        chain=int(fields["chain_id"]),
        number=run.number,
        hash=run.hash,
        timestamp=int(fields["timestamp"]),
        finalized=finalized,
        logs=tuple(log for log in map(log_of, run.entries) if matches(log)),
    )


def _minima_after(runs: Sequence[Run], later_minimum: float) -> list[float]:
    """For each run, the lowest block number that comes after it."""
    minima: list[float] = [later_minimum] * len(runs)
    minimum = later_minimum
    for i in range(len(runs) - 1, -1, -1):
        minima[i] = minimum
        minimum = min(minimum, runs[i].number)
    return minima


def applied(block: RawBlock) -> AppliedBlock:
    """A block that was applied."""
    return AppliedBlock(block.chain, block.number, block.hash, block.timestamp, block.finalized, block.logs)


def plan(state: State, view: View, wanted: Wanted) -> Plan:
    """Plans what to do about the entries in hand.

    - A run of adds whose block does not survive up to the horizon is skipped, and so is its removal.
    - The first removed entry of an applied block retracts it, and the blocks applied above it.
    - A block on top of an applied one that has its number or a higher one replaces it, even if entries of its removal are missing.
    - What is final, and what was applied already, is skipped: after a failover, entries may come again under new ids.
    """
    horizon, is_at_horizon = view.horizon, view.is_at_horizon
    limit = limit_of(wanted.finality, horizon)
    runs = runs_of(view.entries)
    minima = _minima_after(runs, view.later_minimum)
    steps: list[Step] = []
    position = state.position
    stack = state.stack
    held: int | None = None
    is_cut = False
    is_waiting_for_rest = False

    for i, run in enumerate(runs):
        is_last = i == len(runs) - 1
        is_whole = not is_last or (is_at_horizon and not (horizon.part > 0 and horizon.hash == run.hash))
        known = next((j for j, block in enumerate(stack) if block.hash == run.hash), -1)
        # Its handler may not have run.
        is_pending = known >= 0 and stack[known].pending
        if run.removal:
            following = after(position, run)
            # If the consumer ends between two of these, the next one finds the rest by the same entries.
            for top in reversed(stack[known:] if known >= 0 else ()):
                stack = stack[:-1]
                if top.hash == run.hash:
                    position = following
                if not top.skipped:
                    steps.append(Step("undo", top, position, stack))
            position = following
            continue
        if not is_whole:
            is_cut = i == 0 and not is_at_horizon
            is_waiting_for_rest = is_at_horizon
            break
        survives = minima[i] > run.number
        if survives and run.number > limit and run.number > position.final and known == -1:
            held = run.number
            break
        following = after(position, run)
        is_final = survives and run.number <= horizon.final_number
        if run.number <= position.final or (known >= 0 and not is_pending) or not survives:
            position = following
            continue
        if is_pending:
            stack = stack[:known]
        while stack and stack[-1].number >= run.number:
            top = stack[-1]
            stack = stack[:-1]
            if not top.skipped:
                steps.append(Step("undo", top, position, stack))
        block = _block_of(run, is_final, wanted.matches)
        position = replace(following, block=run.number, final=run.number if is_final else position.final)
        if is_final:
            stack = ()
        if not block.logs:
            continue
        if not is_final:
            stack = (*stack, applied(block))
        steps.append(Step("apply", block, position, stack))

    is_consumed = not view.entries or position.id == view.entries[-1].id
    if held is not None or is_waiting_for_rest or (is_at_horizon and is_consumed):
        position = replace(
            position,
            block=lower(whole_number(horizon), limit),
            final=max(position.final, lower(horizon.final_number, limit)),
        )
    stack = tuple(block for block in stack if block.number > position.final)
    return Plan(steps, State(position, stack), held, is_cut)
