"""Users and keys as they are listed and looked up: in pages, and never all at once."""

import pytest

from astra.commands import PutUser, Refusal
from astra.constants import USERS_ASKED_MAX
from astra.errors import RefusalCode, Refused
from astra.model import AccessKey, User
from astra.wire import AccessPage, FindUsers, ListAccess, UsersFound
from node.users import find_users, list_access
from tests.support.metadata_entries import Tables


@pytest.fixture
async def tables() -> Tables:
    """Seven users with a key each, which sort the other way round; three share an address."""
    tables = Tables()
    for number in range(7):
        user_id = f"user{number}"
        key = AccessKey(access_key=f"key{9 - number}", user_id=user_id, secret="s" * 40)
        email = "same@x.y" if number > 3 else f"u{number}@x.y"
        user = User(user_id=user_id, display_name=user_id.title(), email=email)
        assert not isinstance(await tables.do(PutUser(user=user, keys=(key,))), Refusal)
    return tables


async def ask_access(tables: Tables, query: ListAccess) -> AccessPage:
    return await tables.store.read(lambda view: list_access(view, query))


async def ask_users(tables: Tables, query: FindUsers) -> UsersFound:
    return await tables.store.read(lambda view: find_users(view, query))


async def found_ids(tables: Tables, query: FindUsers) -> list[str]:
    return sorted(user.user_id for user in (await ask_users(tables, query)).users)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
async def test_pages_of_keys_show_each_once_with_its_user(tables: Tables, limit: int) -> None:
    shown: list[tuple[str, str]] = []
    after, pages = "", 0
    while pages == 0 or after:
        page = await ask_access(tables, ListAccess(after=after, limit=limit))
        assert len(page.keys) <= limit
        assert {user.user_id for user in page.users} == {key[1] for key in page.keys}
        shown += [key[:2] for key in page.keys]
        after, pages = page.resume, pages + 1
    assert shown == [(f"key{9 - number}", f"user{number}") for number in reversed(range(7))]
    assert pages == -(-7 // limit)


@pytest.mark.parametrize("limit", [0, -1])
async def test_page_of_nothing_is_no_end(tables: Tables, limit: int) -> None:
    page = await ask_access(tables, ListAccess(limit=limit))
    assert len(page.keys) == 1
    assert page.resume == page.keys[0][0]


async def test_page_is_bounded_whatever_is_asked(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.users._LIMIT_MAX", 3)
    page = await ask_access(tables, ListAccess(limit=10**9))
    assert len(page.keys) == 3
    assert page.resume == "key5"


async def test_users_are_found_by_id_and_by_address(tables: Tables) -> None:
    query = FindUsers(user_ids=("user1", "gone", "user1", "a\0b"), emails=("u0@x.y", "u1@x.y", ""))
    assert await found_ids(tables, query) == ["user0", "user1"]
    assert await found_ids(tables, FindUsers()) == []


@pytest.mark.parametrize("rows", [1, 2, 1000])
async def test_address_of_several_finds_two_of_them(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("node.users._LIMIT_MAX", rows)
    query = FindUsers(emails=("same@x.y", "u3@x.y", "nobody@x.y"))
    assert await found_ids(tables, query) == ["user3", "user4", "user5"]


async def test_too_many_at_once_are_refused(tables: Tables) -> None:
    ids = tuple(f"user{number}" for number in range(USERS_ASKED_MAX))
    assert len(await found_ids(tables, FindUsers(user_ids=ids))) == 7
    with pytest.raises(Refused) as refused:
        await ask_users(tables, FindUsers(user_ids=ids, emails=("a@x.y",)))
    assert refused.value.code is RefusalCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "user",
    [
        User(user_id="u", display_name="n" * 256),
        User(user_id="u", display_name="a\nb"),
        User(user_id="u", display_name="n", email="e" * 256),
    ],
)
async def test_name_or_address_without_a_bound_is_refused(tables: Tables, user: User) -> None:
    result = await tables.do(PutUser(user=user, keys=()))
    assert isinstance(result, Refusal)
    assert result.code is RefusalCode.INVALID_ARGUMENT
