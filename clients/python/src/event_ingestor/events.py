"""Logs decoded by the user's events. Needs the extra ``decode``; without events, nothing is decoded and nothing is needed."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from .entry import Log
from .errors import OptionError
from .filter import EventTopic

EventItem: TypeAlias = str | Mapping[str, Any]
"""``Transfer(address indexed from, address indexed to, uint256 value)``, or an item of an ABI in JSON."""


class Event(NamedTuple):
    """A decoded log."""

    name: str
    args: Mapping[str, Any]
    """The arguments by name: integers are ``int``; addresses and bytes are lower-case hexadecimal text with ``0x``; tuples are
    dictionaries and arrays lists. An indexed parameter of a dynamic type is its hash. Without a name: ``arg0``, by its place."""
    log: Log


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: str
    """As in an ABI: a tuple is ``tuple``, perhaps with ``[]``."""
    indexed: bool
    components: tuple["Parameter", ...]


class EventAbi(NamedTuple):
    name: str
    inputs: Sequence[Parameter]
    anonymous: bool


def canonical(parameter: Parameter) -> str:
    """A type in canonical form: a tuple is the list of its components' types."""
    if not parameter.type.startswith("tuple"):
        return parameter.type
    return f"({','.join(map(canonical, parameter.components))}){parameter.type[len('tuple') :]}"


def signature_of(event: EventAbi) -> str:
    """The canonical signature, whose keccak-256 hash is topic0."""
    return f"{event.name}({','.join(map(canonical, event.inputs))})"


# Parsing

_NAME = re.compile(r"[a-zA-Z$_][\w$]*", re.ASCII)
_TYPE = re.compile(
    r"(address|bool|string|function|tuple|bytes([1-9]|[12]\d|3[0-2])?|u?int(8|16|24|32|40|48|56|64|72|80|88|96|104|112|120|128|136"
    r"|144|152|160|168|176|184|192|200|208|216|224|232|240|248|256))(\[([1-9]\d*)?\])*",
    re.ASCII,
)


def _normalized(type_: str) -> str:
    """``uint`` and ``int`` stand for 256 bits."""
    return re.sub(r"^(u?int)(?=$|\[)", r"\g<1>256", type_)


def _checked(name: str, type_: str, indexed: bool, components: tuple[Parameter, ...]) -> Parameter:
    type_ = _normalized(type_)
    if not _TYPE.fullmatch(type_) or (type_.startswith("tuple") and not components):
        raise ValueError(f"the type {type_} cannot be decoded")
    return Parameter(name, type_, indexed, components)


def _split(text: str) -> list[str]:
    """The parts of a list between commas that are in no parentheses."""
    parts, depth, start = list[str](), 0, 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise ValueError("a parenthesis is closed that was not opened")
        if character == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if depth > 0:
        raise ValueError("a parenthesis is not closed")
    return [*parts, text[start:]] if text.strip() else []


def _parse_parameter(text: str, may_be_indexed: bool) -> Parameter:
    text = text.strip()
    components: tuple[Parameter, ...] = ()
    tuple_ = re.match(r"(tuple\s*)?\(", text)
    if tuple_:
        end = text.rindex(")")
        components = tuple(_parse_parameter(part, False) for part in _split(text[tuple_.end() : end]))
        text = "tuple" + text[end + 1 :]
    words = text.split()
    if not words:
        raise ValueError("a parameter is empty")
    type_, *rest = words
    indexed = may_be_indexed and rest[:1] == ["indexed"]
    if indexed:
        rest = rest[1:]
    if len(rest) > 1 or any(not _NAME.fullmatch(name) for name in rest):
        raise ValueError(f"{text!r} is no parameter")
    return _checked(rest[0] if rest else "", type_, indexed, components)


def _parse(text: str) -> EventAbi:
    found = re.fullmatch(
        r"\s*(?:event\s+)?([a-zA-Z$_][\w$]*)\s*\((.*)\)\s*(anonymous)?\s*;?\s*", text, re.ASCII | re.DOTALL
    )
    if found is None:
        raise ValueError(
            "write it as Transfer(address indexed from, address indexed to, uint256 value)"
        )
    name, inputs, anonymous = found.groups()
    return EventAbi(name, [_parse_parameter(part, True) for part in _split(inputs)], anonymous is not None)


def _of_json(item: Mapping[str, Any]) -> EventAbi:
    def parameter(one: Mapping[str, Any]) -> Parameter:
        components = tuple(map(parameter, one.get("components") or ()))
        return _checked(one.get("name") or "", one["type"], one.get("indexed") is True, components)

    if not _NAME.fullmatch(item["name"]):
        raise ValueError("it has no valid name")
    return EventAbi(item["name"], [parameter(one) for one in item["inputs"]], item.get("anonymous") is True)


def parse_events(items: Sequence[EventItem]) -> list[EventAbi]:
    """Parses events. Items of an ABI that are no events are left out.

    :raises OptionError: if one is wrong, is anonymous, or if there is none
    """
    if isinstance(items, str | Mapping):
        raise OptionError(f"events: {items!r}: set a list of events")
    events: list[EventAbi] = []
    for item in items:
        if not isinstance(item, str) and item.get("type") != "event":
            continue
        try:
            event = _parse(item) if isinstance(item, str) else _of_json(item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptionError(f"events: {item!r}: {error}") from error
        if event.anonymous:
            raise OptionError(f"events: {event.name} is anonymous: its logs cannot be recognized")
        if sum(one.indexed for one in event.inputs) > 3:
            raise OptionError(f"events: {event.name} has more than 3 indexed parameters")
        events.append(event)
    if not events:
        raise OptionError("events: this ABI has no event")
    return events


# Decoding

_Convert: TypeAlias = Callable[[Any], Any]


def _keys_of(parameters: Sequence[Parameter]) -> list[str]:
    """The names of parameters, each one once, as the ingestor writes them: a repeated one gets a suffix."""
    names: list[str] = []
    for i, parameter in enumerate(parameters):
        wanted = unique = parameter.name or f"arg{i}"
        n = 2
        while unique in names:
            unique = f"{wanted}_{n}"
            n += 1
        names.append(unique)
    return names


def _item_of(parameter: Parameter) -> tuple[Parameter, int | None] | None:
    """The items of an array, and its length, if that is a part of the type; ``None`` if it is no array."""
    found = re.fullmatch(r"(.*)\[(\d*)\]", parameter.type)
    if found is None:
        return None
    item = Parameter("", found[1], False, parameter.components)
    return item, int(found[2]) if found[2] else None


def _hex(value: bytes) -> str:
    return f"0x{value.hex()}"


def _convert_of(parameter: Parameter) -> _Convert | None:
    """What makes a value as a reader gets it of one as ``eth_abi`` decodes it; ``None``: nothing."""
    array = _item_of(parameter)
    if array is not None:
        convert = _convert_of(array[0])
        return list if convert is None else lambda values: [convert(value) for value in values]
    if parameter.type == "tuple":
        keys = _keys_of(parameter.components)
        converts = [_convert_of(one) or (lambda value: value) for one in parameter.components]
        return lambda values: {
            key: convert(value) for key, convert, value in zip(keys, converts, values, strict=True)
        }
    return _hex if parameter.type.startswith(("bytes", "function")) else None


def _is_dynamic(parameter: Parameter) -> bool:
    array = _item_of(parameter)
    if array is not None:
        return array[1] is None or _is_dynamic(array[0])
    return parameter.type in ("string", "bytes") or any(map(_is_dynamic, parameter.components))


def _may_repeat(parameter: Parameter) -> bool:
    """Whether an array of dynamic values is part of the type: their offsets may all lead to the same long value."""
    array = _item_of(parameter)
    if array is not None:
        return _is_dynamic(array[0]) or _may_repeat(array[0])
    return any(map(_may_repeat, parameter.components))


def _head_size(parameter: Parameter) -> int:
    """The size of a value, in bytes, where the values around it are. A dynamic one has an offset there."""
    if _is_dynamic(parameter):
        return 32
    array = _item_of(parameter)
    if array is not None:
        return _head_size(array[0]) * (array[1] or 0)
    return sum(map(_head_size, parameter.components)) if parameter.type == "tuple" else 32


def assert_disjoint(parameters: Sequence[Parameter], data: bytes) -> None:
    """Raises ``ValueError`` if the values overlap in the data: decoded, they could be a thousand times larger than the data."""
    left = len(data)

    def spend(size: int) -> None:
        nonlocal left
        left -= size
        if left < 0:
            raise ValueError("the values overlap")

    def number_at(at: int) -> int:
        if at + 32 > len(data):
            raise ValueError("the data is too short")
        return int.from_bytes(data[at : at + 32])

    def visit_all(parameters: Sequence[Parameter], base: int) -> None:
        spend(sum(map(_head_size, parameters)))
        at = base
        for one in parameters:
            visit(one, at, base)
            at += _head_size(one)

    def visit(parameter: Parameter, at: int, base: int) -> None:
        if not _is_dynamic(parameter):
            return
        start = base + number_at(at)
        array = _item_of(parameter)
        if array is None:
            if parameter.components:
                visit_all(parameter.components, start)
            else:
                spend(32 + number_at(start))
            return
        item, length = array
        begin = start + 32 if length is None else start
        count = number_at(start) if length is None else length
        size = _head_size(item)
        spend(begin - start + count * size)
        if _is_dynamic(item):
            for i in range(count):
                visit(item, begin + i * size, begin)

    visit_all(parameters, 0)


class _Library(NamedTuple):
    """What the decoding needs of libraries."""

    keccak: Callable[[bytes], bytes]
    decode: Callable[[Sequence[str], bytes], Sequence[Any]]


def _load() -> _Library:
    try:
        from eth_abi.abi import decode
        from eth_hash.auto import keccak

        # It loads its backend at the first use.
        keccak(b"")
    except ImportError as error:
        raise OptionError(
            "events: decoding needs eth-abi and eth-hash: pip install 'event_ingestor[decode]'"
        ) from error
    return _Library(keccak, decode)


_Decode: TypeAlias = Callable[[Log], dict[str, Any]]


def _decode_of(event: EventAbi, library: _Library) -> _Decode:
    keys = _keys_of(event.inputs)
    words = [(key, one) for key, one in zip(keys, event.inputs, strict=True) if one.indexed]
    values = [(key, one) for key, one in zip(keys, event.inputs, strict=True) if not one.indexed]
    in_data = [one for _, one in values]
    may_repeat = any(map(_may_repeat, in_data))
    # A topic is a single word: of any other type it has the hash.
    topic_types = ["bytes32" if _is_long(one) else one.type for _, one in words]
    data_types = [canonical(one) for one in in_data]
    converts: list[_Convert | None] = [_hex if _is_long(one) else _convert_of(one) for _, one in words]
    converts += [_convert_of(one) for one in in_data]
    order = [key for key, _ in (*words, *values)]
    is_in_order = order == keys

    def decode(log: Log) -> dict[str, Any]:
        data = bytes.fromhex(log.data[2:])
        if may_repeat:
            assert_disjoint(in_data, data)
        topics = bytes.fromhex("".join(topic[2:] for topic in log.topics[1:]))
        decoded = (*library.decode(topic_types, topics), *library.decode(data_types, data))
        args = {
            key: value if convert is None else convert(value)
            for key, convert, value in zip(order, converts, decoded, strict=True)
        }
        return args if is_in_order else {key: args[key] for key in keys}

    return decode


def _is_long(parameter: Parameter) -> bool:
    """Whether a value is no single word."""
    return _is_dynamic(parameter) or "[" in parameter.type or parameter.type == "tuple"


class Decoder:
    """Decodes logs by events. Without events it decodes nothing."""

    def __init__(self, items: Sequence[EventItem] | None) -> None:
        """:raises OptionError: if the events are wrong, or if a library is missing"""
        self.topics: list[EventTopic] = []
        self._known: dict[tuple[str, int], tuple[str, _Decode]] = {}
        if items is None:
            return
        events = parse_events(items)
        library = _load()
        for event in events:
            topic0 = _hex(library.keccak(signature_of(event).encode()))
            topic = EventTopic(topic0, 1 + sum(one.indexed for one in event.inputs))
            if topic in self._known:
                raise OptionError(
                    f"events: two events {event.name} have the same types and the same number of topics"
                )
            self._known[topic] = event.name, _decode_of(event, library)
            self.topics.append(topic)

    def decode(self, logs: Sequence[Log]) -> list[Event]:
        """The decoded logs, without those that are no encoding of their event."""
        if not self._known:
            return []
        events: list[Event] = []
        for log in logs:
            found = self._known.get((log.topics[0] if log.topics else "", len(log.topics)))
            if found is None:
                continue
            try:
                events.append(Event(found[0], found[1](log), log))
            # Whatever a library throws at data of any kind.
            except Exception:
                continue
        return events
