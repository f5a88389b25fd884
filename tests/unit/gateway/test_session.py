"""Sessions and what gateways remember, against a real node and without its notices."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astra.commands import CreateBucket, DeleteBucket, Done, PutUser, SetBucketAcl, SetVersioning
from astra.model import ALL_USERS, AccessKey, Grant, User, Versioning
from astra.wire import ListObjects, ObjectPage
from gateway.access import ANONYMOUS, Access, Grantee
from gateway.cluster import Cluster
from gateway.s3api.errors import S3Error
from gateway.session import Session
from gateway.settings import GatewaySettings
from tests.support.nodes import SECRET, LocalNodes


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[LocalNodes]:
    async with LocalNodes(tmp_path, voters=1) as nodes:
        for user_id in ("ann", "bob"):
            key = AccessKey(access_key=f"key-{user_id}", user_id=user_id, secret="s" * 40)
            user = User(user_id=user_id, display_name=user_id.title())
            await nodes.commit(PutUser(user=user, keys=(key,)))
        yield nodes


def make_access(nodes: LocalNodes) -> tuple[Cluster, Access]:
    """As a gateway has it, but deaf to notices: what it remembers grows old."""
    settings = GatewaySettings(
        gateway_id="g", nodes=tuple(nodes.addresses.values()), cluster_secret=SECRET
    )
    cluster = Cluster(nodes.dialer, settings)
    return cluster, Access(cluster, seconds=600, entries_max=100)


async def open_session(cluster: Cluster, access: Access, user_id: str) -> Session:
    grantee = await access.grantee(f"key-{user_id}")
    assert grantee is not None
    return Session(cluster, access, grantee, "s3:ListBucket")


async def change_hands(nodes: LocalNodes) -> None:
    """From ann to bob, behind every gateway's back."""
    await nodes.commit(DeleteBucket(bucket="box"))
    await nodes.commit(CreateBucket(bucket="box", owner_id="bob"))


async def list_box(session: Session) -> ObjectPage:
    return await session.ask(
        "box", lambda epochs: ListObjects(bucket="box", epochs=epochs), ObjectPage
    )


async def test_allow_of_the_new_owner_is_not_denied_by_what_was_remembered(
    nodes: LocalNodes,
) -> None:
    await nodes.commit(CreateBucket(bucket="box", owner_id="ann"))
    cluster, access = make_access(nodes)
    await (await open_session(cluster, access, "ann")).allow("box")
    await change_hands(nodes)
    bob = await open_session(cluster, access, "bob")
    assert (await bob.allow("box")).owner_id == "bob"
    assert (await list_box(bob)).objects == ()


async def test_ask_of_the_old_owner_is_denied_although_it_is_remembered(nodes: LocalNodes) -> None:
    await nodes.commit(CreateBucket(bucket="box", owner_id="ann"))
    cluster, access = make_access(nodes)
    ann = await open_session(cluster, access, "ann")
    await list_box(ann)
    await change_hands(nodes)
    with pytest.raises(S3Error) as denied:
        await list_box(ann)
    assert denied.value.code == "AccessDenied"


async def test_commit_on_old_settings_is_decided_again_and_done_once(nodes: LocalNodes) -> None:
    await nodes.commit(CreateBucket(bucket="box", owner_id="ann"))
    cluster, access = make_access(nodes)
    ann = await open_session(cluster, access, "ann")
    await ann.allow("box")
    await nodes.commit(SetVersioning(bucket="box", versioning=Versioning.SUSPENDED))
    command = SetVersioning(bucket="box", versioning=Versioning.ENABLED)
    await ann.commit("box", command, Done)
    access.forget_bucket("box")
    bucket = await access.bucket("box")
    assert bucket is not None
    assert bucket.versioning is Versioning.ENABLED


async def test_owner_name_of_a_bucket_owner_is_found_after_all_was_forgotten(
    nodes: LocalNodes,
) -> None:
    await nodes.commit(CreateBucket(bucket="box", owner_id="ann"))
    _, access = make_access(nodes)
    assert access.owner_name("ann") == "ann"  # not seen yet: the id
    await access.know_users({"ann", "gone"})
    assert access.owner_name("ann") == "Ann"
    assert access.owner_name("gone") == "gone"


async def test_owner_names_of_more_users_than_one_message_asks_for(
    nodes: LocalNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.USERS_ASKED_MAX", 1)
    _, access = make_access(nodes)
    await access.know_users({"ann", "bob", "gone"})
    assert [access.owner_name(user) for user in ("ann", "bob", "gone")] == ["Ann", "Bob", "gone"]


async def test_owner_name_of_who_asks_is_known(nodes: LocalNodes) -> None:
    _, access = make_access(nodes)
    await access.grantee("key-bob")
    assert access.owner_name("bob") == "Bob"


async def test_what_a_version_decides_is_denied_to_a_caller_that_will_not_look_at_it(
    nodes: LocalNodes,
) -> None:
    await nodes.commit(CreateBucket(bucket="box", owner_id="ann"))
    cluster, access = make_access(nodes)
    bob = await open_session(cluster, access, "bob")
    with pytest.raises(S3Error) as denied:
        await bob.allow("box", "s3:GetObject")
    assert denied.value.code == "AccessDenied"
    assert (await bob.allow("box", "s3:GetObject", deferred=True)).owner_id == "ann"
    with pytest.raises(S3Error):
        await bob.allow("box", "s3:PutBucketVersioning", deferred=True)


async def test_right_that_was_given_or_taken_counts_although_the_bucket_is_remembered(
    nodes: LocalNodes,
) -> None:
    await nodes.commit(CreateBucket(bucket="box", owner_id="ann"))
    cluster, access = make_access(nodes)
    nobody = Session(
        cluster, access, Grantee(user=ANONYMOUS, key=None, epoch=None), "s3:ListBucket"
    )
    with pytest.raises(S3Error):
        await list_box(nobody)
    public = (Grant(grantee=ALL_USERS, permission="READ"),)
    await nodes.commit(SetBucketAcl(bucket="box", acl=public))
    assert (await list_box(nobody)).objects == ()
    await nodes.commit(SetBucketAcl(bucket="box", acl=None))
    with pytest.raises(S3Error) as denied:
        await list_box(nobody)
    assert denied.value.code == "AccessDenied"
