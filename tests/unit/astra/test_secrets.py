"""What may end up in a log or an error by way of repr() shows no secret."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

from astra.commands import AnyCommand, PutUser
from astra.config import Found, load
from astra.dialer import Dialer
from astra.frame_server import FrameServer, Routes
from astra.model import TABLES, AccessKey, User
from astra.wire import Message
from gateway.settings import GatewaySettings
from node.settings import NodeSettings

SECRET = "hunter2" * 5
URL = f"redis://:{SECRET}@127.0.0.1/0"
KEY = AccessKey(access_key="AK", user_id="u", secret=SECRET)
USER = User(user_id="u", display_name="d")
ENVIRONMENT = {"ASTRA_CLUSTER_SECRET": SECRET, "ASTRA_REDIS_URL": URL, "ASTRA_AMQP_URL": URL}


@pytest.mark.parametrize(
    "holder",
    [
        NodeSettings(
            node_id="n1", cluster_id="c", data_dir=Path("d"), cluster_secret=SECRET.encode(),
            metadata=URL, redis_url=URL, amqp_url=URL, peers={"n1": "h:1"}, voters=("n1",),
        ),
        GatewaySettings(
            gateway_id="g", nodes=("127.0.0.1:1",), cluster_secret=SECRET.encode(), amqp_url=URL
        ),
        load(environ=ENVIRONMENT),
        load(environ=ENVIRONMENT).items(),
        Found(value=SECRET, origin="flag"),
        Dialer(secret=SECRET.encode(), role="node", peer_id="n1"),
        FrameServer(secret=SECRET.encode(), node_id="n1", routes=Routes()),
        KEY,
        PutUser(user=USER, keys=(KEY,), replace=True),
    ],
    ids=lambda holder: type(holder).__name__,
)  # fmt: skip
def test_repr_shows_no_secret(holder: object) -> None:
    assert "hunter2" not in repr(holder)
    assert "hunter2" not in f"{holder}"


def structs(kind: inspect.Type, seen: set[type]) -> Iterator[inspect.StructType]:
    """All structs that a value of this type may hold."""
    if isinstance(kind, inspect.StructType) and kind.cls not in seen:
        seen.add(kind.cls)
        yield kind
        for field in kind.fields:
            yield from structs(field.type, seen)
    for name in ("types", "item_types"):
        for inner in getattr(kind, name, ()):
            yield from structs(inner, seen)
    for name in ("item_type", "key_type", "value_type"):
        if (part := getattr(kind, name, None)) is not None:
            yield from structs(part, seen)


def test_only_the_access_key_holds_a_secret() -> None:
    """A struct that is added tomorrow needs a repr of its own, like the access key's."""
    roots = [Message, AnyCommand, *(table.doc for table in TABLES)]
    seen: set[type] = set()
    found = {
        struct.cls
        for root in roots
        for struct in structs(inspect.type_info(root), seen)
        for field in struct.fields
        if any(word in field.name for word in ("secret", "password", "private"))
    }
    assert found == {AccessKey}
    assert len(seen) > 100
    assert all(issubclass(kind, msgspec.Struct) for kind in seen)
