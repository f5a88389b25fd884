"""Clients that write and read while a test breaks things, and the judgement of what they saw.

Every key has one writer, which numbers its writes; a body names its key and number. So every
answer can be judged without a global order:

- A read that began after write n was acknowledged may show n, a later one, or any write whose
  outcome nobody knows (no answer, or a 5xx: it may be applied at any later time), and nothing else.
- A list that began after a key was acknowledged, and that no delete may have touched, has it.
- A refusal (4xx) is never right here: all requests are well-formed and allowed.

The clients never retry (unless told to), so that what a user would see is counted.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from mypy_boto3_s3 import S3Client

from tests.support.buckets import keys, new_bucket
from tests.support.clients import Target, boto3_client
from tests.support.wait import wait_until

SIZES = (300, 5_000, 200_000)  # inline, inline, chunks
DELETE_EVERY = 9
PAUSE_AFTER_FAILURE_S = 0.05
JOIN_SECONDS = 60.0


def one_try(*, read_timeout: float = 20.0) -> Config:
    """A client configuration without retries."""
    return Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        read_timeout=read_timeout,
        connect_timeout=5,
        max_pool_connections=20,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One request without a right answer; `at` in seconds of time.monotonic()."""

    at: float
    what: str


@dataclass(slots=True)
class Register:
    """What may stand under one key. Written by its one writer, read by everybody."""

    key: str
    started: int = 0
    acked: int = 0
    deletes: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)

    def allows(self, number: int, floor: int, started: int) -> bool:
        """True when a read that began at `floor` may show write `number` (0: nothing there)."""
        if number == 0:
            gone = any(n >= floor or n in self.unknown for n in tuple(self.deletes))
            return floor == 0 or gone
        if number > started or number in self.deletes:
            return False
        return number >= floor or number in self.unknown

    def must_exist(self) -> bool:
        """True when no delete can explain its absence."""
        deletes = tuple(self.deletes)
        return self.acked > 0 and not any(n >= self.acked or n in self.unknown for n in deletes)


def body_of(key: str, number: int) -> bytes:
    """The body of one write: its name, then random bytes that follow from it."""
    source = random.Random(f"{key}#{number}")
    head = f"{key}#{number}#".encode()
    return head + source.randbytes(SIZES[number % len(SIZES)])


def number_of(key: str, body: bytes) -> int:
    """Which write of `key` these bytes are, all of them; -1 when they are no write of it."""
    parts = body[:200].split(b"#", 2)
    if len(parts) < 3 or parts[0].decode(errors="replace") != key or not parts[1].isdigit():
        return -1
    number = int(parts[1])
    return number if body == body_of(key, number) else -1


class Load:
    """Writers and readers on one bucket; use `running` and then `verify`."""

    def __init__(
        self,
        target: Target,
        *,
        writers: int = 4,
        keys_each: int = 5,
        pause_s: float = 0.0,
        config: Config | None = None,
    ) -> None:
        self._client = boto3_client(target, config or one_try())
        self.bucket = new_bucket(self._client, "load")
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._registers = [
            [Register(f"w{writer}/k{number}") for number in range(keys_each)]
            for writer in range(writers)
        ]
        self.acks: list[float] = []
        self.reads = 0
        self.failures: list[Failure] = []
        self.wrong: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Load while the context lasts; every thread has written before it begins."""
        jobs: list[Callable[[], None]] = [
            lambda mine=mine: self._write(mine)  # type: ignore[misc]  # the default binds it now
            for mine in self._registers
        ]
        threads = [threading.Thread(target=job, daemon=True) for job in [*jobs, self._read]]
        for thread in threads:
            thread.start()
        try:
            self.wait_for_acks(3 * len(jobs))
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(JOIN_SECONDS)
            assert not any(thread.is_alive() for thread in threads), "a client hangs"

    def wait_for_acks(self, count: int, timeout: float = 90.0) -> None:
        """Returns after `count` more writes were acknowledged."""
        goal = len(self.acks) + count
        wait_until(lambda: len(self.acks) >= goal, timeout, f"{count} more acknowledged writes")

    def longest_gap(self, since: float = 0.0) -> float:
        """The longest time without an acknowledged write, in seconds, from `since` on."""
        times = sorted(at for at in self.acks if at >= since)
        edges = [since, *times] if since else times
        return max((b - a for a, b in pairwise(edges)), default=0.0)

    def verify(self, target: Target) -> int:
        """Reads every key until it gets an answer, and the list; returns how many were there."""
        assert not self.wrong, "\n".join(self.wrong[:10])
        client = boto3_client(target)
        present = 0
        for register in self._all():
            present += self._verify_key(client, register)
        listed = keys(client, self.bucket)
        client.close()
        assert len(listed) == len(set(listed)) == present
        return present

    def summary(self) -> str:
        """For people: what the load saw."""
        kinds: dict[str, int] = {}
        for failure in self.failures:
            kinds[failure.what] = kinds.get(failure.what, 0) + 1
        return f"{len(self.acks)} writes, {self.reads} reads, failed: {kinds}"

    def _all(self) -> list[Register]:
        return [register for mine in self._registers for register in mine]

    def _verify_key(self, client: S3Client, register: Register) -> bool:
        number = self._get(client, register.key)
        assert register.allows(number, register.acked, register.started), (
            f"{register.key} is write {number}, not {register.acked} or one of {register.unknown}"
        )
        return number > 0

    # --- threads ---

    def _write(self, mine: list[Register]) -> None:
        chance = random.Random(mine[0].key)
        while not self._stop.is_set():
            register = chance.choice(mine)
            if self._attempt(register):
                self._read_own(register, with_list=chance.random() < 0.2)
            self._stop.wait(self._pause_s)

    def _attempt(self, register: Register) -> bool:
        number = register.started + 1
        is_delete = number % DELETE_EVERY == 0
        if is_delete:
            register.deletes.add(number)
        register.unknown.add(number)  # until it is known
        register.started = number
        try:
            if is_delete:
                self._client.delete_object(Bucket=self.bucket, Key=register.key)
            else:
                body = body_of(register.key, number)
                done = self._client.put_object(Bucket=self.bucket, Key=register.key, Body=body)
                if done["ETag"].strip('"') != hashlib.md5(body).hexdigest():
                    self.wrong.append(f"PUT {register.key} #{number}: ETag {done['ETag']}")
        except (ClientError, BotoCoreError, HTTPClientError) as error:
            self._failed("PUT/DELETE", error)
            return False
        register.acked = number
        register.unknown.discard(number)
        self.acks.append(time.monotonic())
        return True

    def _read_own(self, register: Register, *, with_list: bool) -> None:
        """Read your writes: HEAD, and LIST now and then."""
        floor, started = register.acked, register.started
        try:
            head = self._client.head_object(Bucket=self.bucket, Key=register.key)
            etag = head["ETag"].strip('"')
            if not self._etag_allowed(register, etag, floor, started):
                self.wrong.append(f"HEAD {register.key} after #{floor}: {etag}")
        except ClientError as error:
            if not self._is_missing(error):
                self._failed("HEAD", error)
            elif not register.allows(0, floor, started):
                self.wrong.append(f"HEAD {register.key} after #{floor}: 404")
        except (BotoCoreError, HTTPClientError) as error:
            self._failed("HEAD", error)
        if with_list:
            self._list_own(register)
        self.reads += 1

    def _etag_allowed(self, register: Register, etag: str, floor: int, started: int) -> bool:
        possible = set(range(floor, started + 1)) | register.unknown
        return any(
            hashlib.md5(body_of(register.key, n)).hexdigest() == etag
            for n in possible
            if register.allows(n, floor, started)
        )

    def _list_own(self, register: Register) -> None:
        try:
            page = self._client.list_objects_v2(Bucket=self.bucket, Prefix=register.key)
        except (ClientError, BotoCoreError, HTTPClientError) as error:
            self._failed("LIST", error)
            return
        found = any(item["Key"] == register.key for item in page.get("Contents", []))
        number = max(register.acked, 1) if found else 0
        if not found and not register.allows(0, register.acked, register.started):
            self.wrong.append(f"LIST lacks {register.key} after #{register.acked}")
        is_gone = register.acked in register.deletes and not register.unknown
        if number and is_gone:
            self.wrong.append(f"LIST shows {register.key} after delete #{register.acked}")

    def _read(self) -> None:
        chance = random.Random("reader")
        while not self._stop.is_set():
            register = chance.choice(self._all())
            floor = register.acked
            try:
                number = self._get(self._client, register.key)
            except (ClientError, BotoCoreError, HTTPClientError) as error:
                self._failed("GET", error)
                continue
            self.reads += 1
            if not register.allows(number, floor, register.started):
                self.wrong.append(f"GET {register.key} showed #{number}, acknowledged #{floor}")

    def _get(self, client: S3Client, key: str) -> int:
        """The number of the write that stands there; 0 when nothing does, -1 for wrong bytes."""
        try:
            body = client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if self._is_missing(error):
                return 0
            raise
        return number_of(key, body)

    @staticmethod
    def _is_missing(error: ClientError) -> bool:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == 404

    def _failed(self, what: str, error: Exception) -> None:
        kind = type(error).__name__
        if isinstance(error, ClientError):
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            kind = f"{status} {error.response.get('Error', {}).get('Code')}"
            if status < 500 or status == 500:
                self.wrong.append(f"{what}: {kind} {error}")
        self.failures.append(Failure(at=time.monotonic(), what=f"{what} {kind}"))
        self._stop.wait(PAUSE_AFTER_FAILURE_S)
