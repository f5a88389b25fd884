"""Clients of mixed load: signed requests over plain sockets, without retries.

Every answer is written down; one that can never be right (wrong bytes, a 4xx for a request that is
in order) is a violation at once. A 5xx, a broken connection and a time-out leave the outcome of a
write unknown, and say nothing for a read.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import threading
import time
import xml.etree.ElementTree as ET  # answers of our own cluster
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from tests.chaos.history import META_OP, Content, Event, History, Outcome
from tests.support.clients import Target
from tests.support.rawhttp import sign
from tests.support.wait import wait_until

REQUEST_S: Final = 12.0
JOIN_S: Final = 40.0
PART_BYTES: Final = 5 << 20
STARTS: Final = (0, 1, 299, 65_535, (1 << 20) - 1)  # of ranges
LENGTHS: Final = (1, 300, 70_000, 1 << 20)
KIB: Final = 1024
# Around the inline limit (64 KiB) and the borders of chunks (1 MiB).
SIZES: Final = (
    0, 1, 300, 5000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 200_000,
    1024 * KIB - 1, 1024 * KIB, 1024 * KIB + 1, 3 * 1024 * KIB + 77, 5 * 1024 * KIB,
)  # fmt: skip
SIZE_WEIGHTS: Final = (6, 6, 20, 20, 6, 6, 6, 10, 3, 3, 3, 1, 1)
OPERATIONS: Final = {
    "PUT": 30, "GET": 25, "RANGE": 5, "HEAD": 14, "LIST": 4, "PAGES": 2, "DELETE": 8,
    "IF_NONE_MATCH": 5, "IF_MATCH": 5, "COPY": 3, "MULTIPART": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status 0: none came."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_whole: bool = True
    note: str = ""

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "").strip('"')

    @property
    def code(self) -> str:
        return self.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


class Session:
    """One client's connection to the gateway, made again whenever it breaks."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request, one try."""
        signed = sign(self._target, method, path, headers)
        connection = self._connection
        if connection is None:
            host, _, port = self._target.host.rpartition(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=REQUEST_S)
            self._connection = connection
        try:
            connection.request(method, path, body, dict(signed.headers))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            try:
                data = response.read()
            except http.client.IncompleteRead as error:
                self.close()
                return Answer(
                    status=response.status, body=error.partial, headers=found, is_whole=False
                )
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(status=0, note=type(error).__name__)
        return Answer(status=response.status, body=data, headers=found)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Client:
    """One thread's work, following from its name and the seed."""

    def __init__(
        self, name: str, *, seed: int, target: Target, bucket: str, keys: Sequence[str],
        history: History,
    ) -> None:  # fmt: skip
        self.name = name
        self._chance = random.Random(f"{seed}/{name}")
        self._session = Session(target)
        self._bucket = bucket
        self._keys = keys
        self._history = history
        self._etags: dict[str, str] = {}  # last seen, for If-Match

    def step(self) -> Event:
        """One operation, drawn by chance."""
        kind = self._chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        key = self._chance.choice(self._keys)
        match kind:
            case "GET":
                return self.get(key)
            case "RANGE":
                start, length = self._chance.choice(STARTS), self._chance.choice(LENGTHS)
                return self.get_range(key, start, length)
            case "HEAD":
                return self.head(key)
            case "LIST":
                return self.list()
            case "PAGES":
                return self.list_pages(self._chance.choice(("", "a/")), self._chance.choice((2, 5)))
            case "DELETE":
                return self.delete(key)
            case "COPY":
                return self.copy(self._chance.choice(self._keys), key)
            case "MULTIPART":
                return self.multipart(key)
            case "IF_NONE_MATCH":
                return self.put(key, self._size(), if_none_match=True)
            case "IF_MATCH":
                return self.put(key, self._size(), if_match=self._etags.get(key, "0" * 32))
            case _:
                return self.put(key, self._size())

    def _size(self) -> int:
        return self._chance.choices(SIZES, SIZE_WEIGHTS)[0]

    def close(self) -> None:
        self._session.close()

    # --- reads ---

    def get(self, key: str) -> Event:
        event = self._begin("GET", key)
        answer = self._session.ask("GET", self._path(key))
        self._see(event, answer)
        content = self._history.contents.get(answer.etag)
        if answer.status != 200:
            return event
        if content is None:
            self._history.say_wrong(event, "GET shows an ETag that nobody wrote")
        elif answer.is_whole and answer.body != content.bytes():
            self._history.say_wrong(event, f"GET gave {len(answer.body)} wrong bytes")
        elif not content.bytes().startswith(answer.body):
            self._history.say_wrong(event, f"GET gave {len(answer.body)} wrong bytes, then broke")
        return event

    def get_range(self, key: str, start: int, length: int) -> Event:
        """A part of a body: of one write, from the right place, and as long as there is any."""
        event = self._begin("GET", key)
        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        answer = self._session.ask("GET", self._path(key), headers=wanted)
        event.seen_op, event.seen_etag = answer.headers.get(META_OP, ""), answer.etag
        expected = {206: Outcome.OK, 404: Outcome.MISSING, 416: Outcome.REFUSED}
        self._end(event, answer, expected)
        content = self._history.contents.get(answer.etag)
        if answer.status != 206:
            return event
        if content is None:
            self._history.say_wrong(event, "GET of a range shows an ETag that nobody wrote")
            return event
        part = content.bytes()[start : start + length]
        shown = f"bytes {start}-{start + len(part) - 1}/{content.size}"
        if answer.headers.get("content-range") != shown:
            self._history.say_wrong(event, f"GET of {shown} is called something else")
        if answer.body != part if answer.is_whole else not part.startswith(answer.body):
            self._history.say_wrong(event, f"GET of {shown} gave wrong bytes")
        return event

    def head(self, key: str) -> Event:
        event = self._begin("HEAD", key)
        self._see(event, self._session.ask("HEAD", self._path(key)))
        return event

    def _see(self, event: Event, answer: Answer) -> None:
        event.seen_op, event.seen_etag = answer.headers.get(META_OP, ""), answer.etag
        self._end(event, answer, {200: Outcome.OK, 404: Outcome.MISSING})
        if event.outcome is Outcome.OK:
            self._etags[event.key] = answer.etag

    def list(self) -> Event:
        event = self._begin("LIST", "")
        answer = self._session.ask("GET", f"/{self._bucket}?list-type=2")
        if answer.status == 200 and answer.is_whole:
            event.listed = _listed(answer.body)
            strangers = set(event.listed) - set(self._keys)
            if strangers:
                self._history.say_wrong(event, f"LIST shows {sorted(strangers)}")
        self._end(event, answer, {200: Outcome.OK})
        return event

    def list_pages(self, prefix: str, size: int) -> Event:
        """A list in pages: each is a read of the keys from the page before to its own last one."""
        token, after = "", ""
        while True:
            event = self._begin("LIST", "")
            query = f"list-type=2&max-keys={size}&prefix={quote(prefix, safe='')}"
            query += f"&continuation-token={quote(token, safe='')}" if token else ""
            answer = self._session.ask("GET", f"/{self._bucket}?{query}")
            if answer.status == 200 and answer.is_whole:
                event.listed = _listed(answer.body)
                token = _text(answer.body, "NextContinuationToken")
                last = max(event.listed, default="")
                event.covered = covered_keys(self._keys, prefix, after, last if token else "")
                strangers = set(event.listed) - set(event.covered)
                if strangers or len(event.listed) > size or (token and not event.listed):
                    self._history.say_wrong(event, f"a page after {after!r} has {event.listed}")
                after = last
            self._end(event, answer, {200: Outcome.OK})
            if event.outcome is not Outcome.OK or not token:
                return event

    # --- writes ---

    def put(self, key: str, size: int, *, if_match: str = "", if_none_match: bool = False) -> Event:
        event = self._begin("PUT", key, op=True)
        event.if_match, event.if_none_match = if_match, if_none_match
        content = Content(name=event.op, size=size)
        body = content.bytes()
        event.etag = self._announce(hashlib.md5(body).hexdigest(), content)
        headers = {META_OP: event.op}
        if if_match:
            headers["If-Match"] = f'"{if_match}"'
        if if_none_match:
            headers["If-None-Match"] = "*"
        event.called = time.monotonic()
        answer = self._session.ask("PUT", self._path(key), body, headers)
        expected = {200: Outcome.OK}
        if if_match or if_none_match:
            expected |= {412: Outcome.REFUSED, 409: Outcome.NOTHING}
        if if_match:
            expected[404] = Outcome.MISSING
        self._end(event, answer, expected)
        self._check_etag(event, answer)
        return event

    def delete(self, key: str) -> Event:
        event = self._begin("DELETE", key, op=True)
        self._end(event, self._session.ask("DELETE", self._path(key)), {204: Outcome.OK})
        return event

    def copy(self, source: str, key: str) -> Event:
        event = self._begin("COPY", key, op=True)
        event.source = source
        headers = {
            "x-amz-copy-source": f"/{self._bucket}/{source}",
            "x-amz-metadata-directive": "REPLACE",
            META_OP: event.op,
        }
        answer = self._session.ask("PUT", self._path(key), headers=headers)
        # 200 is sent before the copy is made: the body has the last word.
        if answer.status == 200 and b"<Error>" in answer.body:
            answer = Answer(status=500, body=answer.body)
        if answer.status == 200:
            event.etag = _text(answer.body, "ETag").strip('"')
        self._end(event, answer, {200: Outcome.OK, 404: Outcome.MISSING, 409: Outcome.NOTHING})
        return event

    def multipart(self, key: str) -> Event:
        event = self._begin("MULTIPART", key, op=True)
        content = Content(name=event.op, size=PART_BYTES + self._chance.choice((1, 300, 70_000)))
        body = content.bytes()
        parts = (body[:PART_BYTES], body[PART_BYTES:])
        digests = [hashlib.md5(part) for part in parts]
        etag = hashlib.md5(b"".join(d.digest() for d in digests)).hexdigest() + f"-{len(parts)}"
        event.etag = self._announce(etag, content)
        self._announce(hashlib.md5(body).hexdigest(), content)  # of a copy of it
        upload = self._session.ask(
            "POST", f"{self._path(key)}?uploads=", headers={META_OP: event.op}
        )
        upload_id = _text(upload.body, "UploadId") if upload.status == 200 else ""
        listed = ""
        for number, part in enumerate(parts, start=1):
            query = f"?partNumber={number}&uploadId={upload_id}"
            sent = upload_id and self._session.ask("PUT", self._path(key) + query, part)
            if not sent or sent.status != 200:
                self._end(event, Answer(status=409, note="not completed"), {409: Outcome.NOTHING})
                return event
            listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{sent.etag}</ETag></Part>"
        event.called = time.monotonic()
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        done = self._session.ask("POST", f"{self._path(key)}?uploadId={upload_id}", body)
        if done.status == 200 and b"<Error>" in done.body:
            done = Answer(status=500, body=done.body)
        self._end(event, done, {200: Outcome.OK})
        return event

    # --- writing it down ---

    def _path(self, key: str) -> str:
        return f"/{self._bucket}/{key}"

    def _begin(self, kind: str, key: str, *, op: bool = False) -> Event:
        made = self._history.new_op() if op else ""
        return Event(client=self.name, kind=kind, key=key, called=time.monotonic(), op=made)

    def _announce(self, etag: str, content: Content) -> str:
        """Before it is sent: whoever reads it then knows its bytes."""
        self._history.contents[etag] = content
        return etag

    def _end(self, event: Event, answer: Answer, expected: Mapping[int, Outcome]) -> None:
        event.returned = time.monotonic()
        event.status, event.note = answer.status, answer.note
        if answer.status in expected and answer.is_whole:
            event.outcome = expected[answer.status]
        elif answer.note == ConnectionRefusedError.__name__:
            event.outcome = Outcome.NOTHING
        elif 0 < answer.status < 500 and answer.status not in expected:
            self._history.say_wrong(event, f"a request in order was refused ({answer.code})")
        elif answer.status == 500:
            self._history.say_wrong(event, f"an internal error ({answer.code})")
        self._history.add(event)

    def _check_etag(self, event: Event, answer: Answer) -> None:
        if event.outcome is Outcome.OK and answer.etag != event.etag:
            self._history.say_wrong(event, f"PUT was answered the ETag {answer.etag}")


def covered_keys(keys: Sequence[str], prefix: str, after: str, last: str) -> list[str]:
    """The keys that a page after `after` shows if they exist; `last` empty: to the end."""
    return [
        key for key in keys if key.startswith(prefix) and after < key and (not last or key <= last)
    ]


def _text(document: bytes, tag: str) -> str:
    found = ET.fromstring(document).find(f"{{*}}{tag}")
    return (found.text or "") if found is not None else ""


def _listed(document: bytes) -> dict[str, str]:
    contents = ET.fromstring(document).findall("{*}Contents")
    return {
        item.findtext("{*}Key", ""): item.findtext("{*}ETag", "").strip('"') for item in contents
    }


class Load:
    """Clients in threads, on one bucket."""

    def __init__(
        self, target: Target, *, seed: int, clients: int, keys: Sequence[str], pause_s: float
    ) -> None:
        self.history = History()
        self.keys = list(keys)
        self._target = target
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.bucket = "chaos"
        self._clients = [
            Client(
                f"c{number}", seed=seed, target=target, bucket=self.bucket, keys=self.keys,
                history=self.history,
            )
            for number in range(clients)
        ]  # fmt: skip
        self._errors: list[BaseException] = []

    def make_bucket(self) -> None:
        session = Session(self._target)
        wait_until(
            lambda: session.ask("PUT", f"/{self.bucket}").status == 200, 30.0, "the bucket is made"
        )
        session.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Load while the context lasts."""
        threads = [
            threading.Thread(target=self._work, args=(client,), daemon=True)
            for client in self._clients
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(JOIN_S)
        assert not any(thread.is_alive() for thread in threads), "a client hangs"
        if self._errors:
            raise self._errors[0]

    def _work(self, client: Client) -> None:
        try:
            while not self._stop.is_set():
                event = client.step()
                is_lost = event.outcome is Outcome.UNKNOWN
                self._stop.wait(max(self._pause_s, 0.1 if is_lost else 0.0))
        except BaseException as error:
            self._errors.append(error)  # raised where the load was started
        finally:
            client.close()

    def read_everything(self, timeout: float) -> None:
        """After healing: every key and the list, until they answer."""
        client = Client(
            "final", seed=0, target=self._target, bucket=self.bucket, keys=self.keys,
            history=self.history,
        )  # fmt: skip
        wanted = (Outcome.OK, Outcome.MISSING)
        for key in self.keys:
            wait_until(lambda key=key: client.get(key).outcome in wanted, timeout, f"GET {key}")  # type: ignore[misc]  # the default binds it now
        wait_until(lambda: client.list().outcome is Outcome.OK, timeout, "LIST answers")
        client.close()
