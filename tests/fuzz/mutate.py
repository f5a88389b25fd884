"""Inputs for decoders: valid values made from their types, bytes changed as faults and foes would.

Rules: everything follows from the chance that is given. `Maker` needs no list of messages: it
reads the types that the decoder reads, so a message that is added tomorrow is fuzzed too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import inspect

# Where decoders of msgpack go wrong: lengths beyond the input, reserved bytes, deep nesting.
_HEADS: Final = (
    b"\xc1", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xc0",
    b"\xa4\xff\xfe\xfd\xfc", b"\xc9\xff\xff\xff\xff\x01", b"\x00", b"\xff",
)  # fmt: skip
_DEPTHS: Final = (40, 600, 3000)
_TEXTS: Final = (
    "", "a", "n1", "../../etc/passwd", "/", "a\0b", "é", "x" * 70, "0" * 32, "f" * 32,
    "NaN", "__class__", "cos\nsystem", "\U0010ffff",
)  # fmt: skip
_INTS: Final = (0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 255, 65536)


class Maker:
    """Random valid values of a type that msgspec can decode."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def value(self, kind: inspect.Type, depth: int = 0) -> object:
        """As msgspec would encode it: structs become tuples or mappings."""
        match kind:
            case inspect.UnionType(types=types):
                return self.value(self._chance.choice(types), depth)
            case inspect.StructType():
                return self._struct(kind, depth)
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
                count = 0 if depth > 5 else self._chance.choice((0, 1, 1, 2, 3))
                return [self.value(item, depth + 1) for _ in range(count)]
            case inspect.TupleType(item_types=items):
                return [self.value(item, depth + 1) for item in items]
            case inspect.DictType(key_type=key, value_type=item):
                return {self._key(key): self.value(item, depth + 1) for _ in range(2)}
            case inspect.EnumType(cls=cls):
                return self._chance.choice(list(cls)).value
            case inspect.LiteralType(values=values):
                return self._chance.choice(values)
            case _:
                return self._plain(kind)

    def _plain(self, kind: inspect.Type) -> object:
        match kind:
            case inspect.IntType():
                return self._chance.choice((*_INTS, self._chance.randrange(1000)))
            case inspect.StrType():
                return self._chance.choice(_TEXTS)
            case inspect.BytesType():
                return self._chance.randbytes(self._chance.choice((0, 1, 8, 32, 100)))
            case inspect.BoolType():
                return self._chance.random() < 0.5
            case inspect.FloatType():
                return self._chance.choice((0.0, -1.5, float("inf"), float("nan")))
            case inspect.NoneType():
                return None
            case _:
                raise TypeError(f"no values for {kind}")

    def _key(self, kind: inspect.Type) -> str:
        return str(self.value(kind))

    def _struct(self, kind: inspect.StructType, depth: int) -> object:
        values = {field.encode_name: self.value(field.type, depth + 1) for field in kind.fields}
        if kind.array_like:
            head = [] if kind.tag is None else [kind.tag]
            return [*head, *values.values()]
        if kind.tag is not None and kind.tag_field is not None:
            return {kind.tag_field: kind.tag, **values}
        return values

    def encoded(self, kind: inspect.Type) -> bytes:
        return msgspec.msgpack.encode(self.value(kind))


class Mutator:
    """Changes bytes: one bit, a byte, a piece cut out, put in twice, or replaced by poison."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._ways: Sequence[Callable[[bytearray], None]] = (
            self._flip, self._flip, self._set, self._cut, self._double, self._end, self._poison,
            self._poison, self._nest, self._random,
        )  # fmt: skip

    def mutate(self, data: bytes) -> bytes:
        """One to four changes, now and then none."""
        changed = bytearray(data)
        for _ in range(self._chance.choice((0, 1, 1, 1, 2, 2, 4))):
            self._chance.choice(self._ways)(changed)
        return bytes(changed)

    def _place(self, data: bytearray) -> int:
        return self._chance.randrange(len(data) + 1)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._chance.randrange(len(data))] = self._chance.choice((0, 127, 128, 255))

    def _cut(self, data: bytearray) -> None:
        start = self._place(data)
        del data[start : start + self._chance.choice((1, 2, 4, 16))]

    def _double(self, data: bytearray) -> None:
        start = self._place(data)
        piece = data[start : start + self._chance.choice((1, 4, 16, 64))]
        data[start:start] = piece * self._chance.choice((1, 1, 3))

    def _end(self, data: bytearray) -> None:
        del data[self._place(data) :]

    def _poison(self, data: bytearray) -> None:
        start, head = self._place(data), self._chance.choice(_HEADS)
        data[start : start + self._chance.choice((0, 1, len(head)))] = head

    def _nest(self, data: bytearray) -> None:
        start = self._place(data)
        opener = self._chance.choice((b"\x91", b"\x81\xa0", b"\x92\xc0"))
        data[start:start] = opener * self._chance.choice(_DEPTHS)

    def _random(self, data: bytearray) -> None:
        start = self._place(data)
        data[start:start] = self._chance.randbytes(self._chance.choice((1, 3, 20)))
