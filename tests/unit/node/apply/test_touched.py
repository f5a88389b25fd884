"""What a command is said to touch covers what it changes; and no command can stop a node."""

from __future__ import annotations

import enum
import random
import typing

import pytest
from msgspec import structs

from astra import commands, model
from astra.commands import AnyCommand, Command, CreateBucket, SetVersioning
from astra.model import (
    ACCESS_KEYS,
    BUCKETS,
    NODES,
    OBJECTS,
    USERS,
    VERSIONS,
    Doc,
    Key,
    Versioning,
)
from node.apply import NOTHING, Touched, touched_by, touched_by_entry
from tests.support.metadata_entries import OWNER, Tables, dump

ALL_COMMANDS: tuple[type[Command], ...] = typing.get_args(AnyCommand)
NAMES = ["b", "b2", "u", "", "a\0b", "x" * 300, "no-such", "null", "f" * 32, "é"]
KEYS = [b"k", b"l", b"", b"\0", b"x" * 1025]
NUMBERS = [0, 1, 2, 3, 7, -1, 10_000, 10_001, 2**62, 2**63 - 1, 1024, 2048, 3072]


class _Maker:
    """Random values of the commands' own types, for every field."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def command(self) -> AnyCommand:
        return typing.cast(AnyCommand, self.struct(self.random.choice(ALL_COMMANDS)))

    def struct(self, kind: type[object]) -> object:
        hints = typing.get_type_hints(kind, vars(model) | vars(commands))
        fields = structs.fields(typing.cast("type[Command]", kind))
        return kind(**{field.name: self.value(hints[field.name]) for field in fields})

    def value(self, hint: object) -> object:
        choices = typing.get_args(hint)
        if typing.get_origin(hint) is tuple:
            if choices[-1] is Ellipsis:
                return tuple(self.value(choices[0]) for _ in range(self.random.randrange(3)))
            return tuple(self.value(choice) for choice in choices)
        if choices:
            return self.value(self.random.choice(choices))
        return self.plain(hint)

    def plain(self, hint: object) -> object:
        if hint is str:
            return self.random.choice(NAMES)
        if hint is bytes:
            return self.random.choice(KEYS)
        if hint is int:
            return self.random.choice(NUMBERS)
        if hint is bool:
            return self.random.random() < 0.5
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return self.random.choice(list(hint))
        if hint is type(None):
            return None
        assert isinstance(hint, type)
        return self.struct(hint)


Rows = dict[str, dict[Key, Doc]]


def _changed(table: str, before: Rows, after: Rows) -> set[Key]:
    keys = before[table].keys() | after[table].keys()
    return {key for key in keys if before[table].get(key) != after[table].get(key)}


async def _rows(tables: Tables) -> Rows:
    return {name: dict(rows) for name, rows in (await dump(tables.store)).items()}


def _check(touched: Touched, before: Rows, after: Rows) -> None:
    for table in (OBJECTS.name, VERSIONS.name):
        for key in _changed(table, before, after):
            assert isinstance(key[0], bytes)
            assert (key[0].decode(), key[1]) in touched.keys
            assert key[0].decode() in touched.listings
    for key in _changed(BUCKETS.name, before, after):
        assert isinstance(key[0], bytes)
        assert key[0].decode() in touched.buckets
    has_access = _changed(USERS.name, before, after) | _changed(ACCESS_KEYS.name, before, after)
    assert touched.access or not has_access
    assert touched.nodes or not _changed(NODES.name, before, after)


@pytest.mark.parametrize("seed", range(10))
async def test_apply_any_command_answers_and_changes_only_what_it_touches(seed: int) -> None:
    maker, tables = _Maker(seed), Tables()
    await tables.do(CreateBucket(bucket="b", owner_id=OWNER))
    await tables.do(SetVersioning(bucket="b", versioning=Versioning(seed % 3)))
    before = await _rows(tables)
    for _ in range(400):
        if maker.random.random() < 0.5:
            command: AnyCommand = tables.put("b", maker.random.choice(KEYS))
        else:
            command = maker.command()
        await tables.do(command, request_id=maker.random.choice(["", None, "again", "a\0b"]))
        after = await _rows(tables)
        touched = touched_by(command)
        assert touched == touched_by_entry(tables.log[-1])
        _check(touched, before, after)
        before = after


def test_touched_by_parts_of_an_upload_is_nothing() -> None:
    command = commands.PutPart(bucket="b", key=b"k", upload_id="u", number=1, size=0, etag="e")
    assert touched_by(command) == NOTHING
