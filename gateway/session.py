"""One request's dealings with the cluster: on whose behalf, allowed on which epochs.

Every question goes out with the epochs on which it was allowed. When the leader says that they
are old, the session reloads who asks and what the bucket says, decides again, and asks again;
so a revoked key or a lost right is refused from the moment its change was acknowledged.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, TypeVar

from astra.commands import AnyCommand, Refusal, Result
from astra.errors import RefusalCode, Refused, Unavailable
from astra.model import Bucket, ObjectVersion, Upload
from astra.wire import Commit, Committed, Epochs, Message
from gateway.access import Access, Grantee
from gateway.cluster import Cluster
from gateway.policy import Verdict, allows_upload, allows_version, decide, may_list
from gateway.s3api.errors import S3Error

_STALE_ROUNDS_MAX: Final = 5

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Result)


class Session:
    """Asks the cluster for one request."""

    def __init__(self, cluster: Cluster, access: Access, grantee: Grantee, action: str) -> None:
        self._cluster = cluster
        self._access = access
        self.grantee = grantee
        self._action = action

    @property
    def user_id(self) -> str:
        return self.grantee.user.user_id

    async def allow_service(self) -> None:
        """Raises AccessDenied unless this request may do its action without a bucket."""
        self._check_service()

    def _check_service(self) -> None:
        if decide(self.grantee.user, self._action, None) is not Verdict.ALLOWED:
            raise S3Error("AccessDenied")

    async def allow(
        self, bucket_name: str, action: str | None = None, *, deferred: bool = False
    ) -> Bucket:
        """The bucket, if this request may do `action` (its own one by default) on it. Raises
        NoSuchBucket, AccessDenied. `deferred`: the caller goes on to `check_version` or
        `check_upload` for what the bucket alone does not decide; otherwise that is denied.

        A grant on old state is caught by the leader, a denial would never reach it: so what
        denies is looked up again first."""
        bucket = await self._access.bucket(bucket_name)
        if not self._is_allowed(bucket, action, deferred=deferred):
            await self._reload(bucket_name)
            bucket = await self._access.bucket(bucket_name)
            if not self._is_allowed(bucket, action, deferred=deferred):
                raise S3Error("AccessDenied")
        if bucket is None:
            raise S3Error("NoSuchBucket", BucketName=bucket_name)
        return bucket

    def _is_allowed(self, bucket: Bucket | None, action: str | None, *, deferred: bool) -> bool:
        verdict = decide(self.grantee.user, action or self._action, bucket)
        return verdict is Verdict.ALLOWED or (deferred and verdict is Verdict.DEFERRED)

    def check_version(
        self, bucket: Bucket, version: ObjectVersion, action: str | None = None
    ) -> None:
        """Raises AccessDenied unless this request may do `action` on this version."""
        if not allows_version(self.grantee.user, action or self._action, bucket, version):
            raise S3Error("AccessDenied")

    def check_upload(self, bucket: Bucket, upload: Upload) -> None:
        """Raises AccessDenied unless this request may go on with this upload."""
        if not allows_upload(self.grantee.user, bucket, upload):
            raise S3Error("AccessDenied")

    def check_missing(self, bucket: Bucket) -> None:
        """Raises AccessDenied unless who asks may know that a key is not there."""
        if not may_list(self.grantee.user, bucket):
            raise S3Error("AccessDenied")

    def may(self, action: str, bucket: Bucket) -> bool:
        """Whether this request may also do `action`, by the bucket alone."""
        return decide(self.grantee.user, action, bucket) is Verdict.ALLOWED

    async def ask(
        self,
        bucket_name: str,
        build: Callable[[Epochs], Message],
        answer: type[M],
        *,
        action: str | None = None,
        deferred: bool = False,
    ) -> M:
        """Asks about a bucket, deciding again whenever the decision was made on old state.
        `deferred`: as for `allow`, about the answer."""
        for _ in range(_STALE_ROUNDS_MAX):
            bucket = await self.allow(bucket_name, action, deferred=deferred)
            epochs = Epochs(access=self.grantee.epoch, bucket=bucket.epoch)
            try:
                return _not_refused(await self._cluster.ask(build(epochs), answer))
            except Refused as error:
                if error.code is not RefusalCode.STALE_EPOCH:
                    raise
                await self._reload(bucket_name)
        raise Unavailable("the access settings change faster than they can be read")

    async def ask_service(self, build: Callable[[Epochs], Message], answer: type[M]) -> M:
        """Asks something that concerns no bucket, or one that need not exist."""
        for _ in range(_STALE_ROUNDS_MAX):
            self._check_service()
            try:
                epochs = Epochs(access=self.grantee.epoch)
                return _not_refused(await self._cluster.ask(build(epochs), answer))
            except Refused as error:
                if error.code is not RefusalCode.STALE_EPOCH:
                    raise
                await self._reload(None)
        raise Unavailable("the access settings change faster than they can be read")

    async def commit(
        self, bucket_name: str, command: AnyCommand, done: type[R], *, deferred: bool = False
    ) -> R:
        """Commits one command, exactly once. Raises Refused with what apply decided.
        `deferred`: the caller has held the version, or the upload, against the request."""
        request_id = secrets.token_hex(16)
        committed = await self.ask(
            bucket_name,
            lambda epochs: Commit(request_id=request_id, epochs=epochs, command=command),
            Committed,
            deferred=deferred,
        )
        return expect_result(committed.result, done)

    async def commit_service(self, command: AnyCommand, done: type[R]) -> R:
        """As commit, for a command whose bucket need not exist (CreateBucket)."""
        request_id = secrets.token_hex(16)
        committed = await self.ask_service(
            lambda epochs: Commit(request_id=request_id, epochs=epochs, command=command),
            Committed,
        )
        return expect_result(committed.result, done)

    async def _reload(self, bucket_name: str | None) -> None:
        """Looks up again who asks. Raises InvalidAccessKeyId or AccessDenied when the key has
        gone or changed since the request was authenticated."""
        key = self.grantee.key
        self._access.forget(key.access_key if key else None, bucket_name)
        if key is None:
            return
        again = await self._access.grantee(key.access_key)
        if again is None or again.key is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=key.access_key)
        if again.key.secret != key.secret:
            raise S3Error("AccessDenied", "The secret of this access key was changed.")
        self.grantee = again


def _not_refused(message: M) -> M:
    """A refusal by apply comes inside Committed; one by a service was raised already."""
    if isinstance(message, Committed) and isinstance(message.result, Refusal):
        raise Refused(message.result.code, message.result.detail)
    return message


def expect_result(result: Result, done: type[R]) -> R:
    """The result as the type that its command answers."""
    if not isinstance(result, done):
        raise Unavailable(f"the cluster answered a {type(result).__name__}")
    return result
