"""`astra key list` reads all keys, a page at a time."""

from pathlib import Path

from astra.cli.key import read_keys
from astra.commands import PutUser
from astra.leader import LeaderClient
from astra.model import AccessKey, User
from tests.support.nodes import LocalNodes


async def test_keys_of_several_pages_are_all_listed_without_secrets(tmp_path: Path) -> None:
    async with LocalNodes(tmp_path, voters=1) as nodes:
        for number in range(5):
            user = User(user_id=f"u{number}", display_name=f"U{number}", email=f"u{number}@x.y")
            key = AccessKey(access_key=f"key{number}", user_id=user.user_id, secret="s" * 40)
            await nodes.commit(PutUser(user=user, keys=(key,)))
        leader = LeaderClient(
            nodes.dialer,
            list(nodes.addresses.values()),
            timeout_s=15.0,
            attempt_timeout_s=5.0,
        )
        rows = [row async for row in read_keys(leader, limit=2)]
    assert rows == [
        {
            "access_key": f"key{number}",
            "user_id": f"u{number}",
            "display_name": f"U{number}",
            "email": f"u{number}@x.y",
            "is_root": False,
        }
        for number in range(5)
    ]
