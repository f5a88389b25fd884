"""One client that moves large bodies with as little work of its own as a client can do.

Uploads leave by sendfile, downloads are received into one buffer again and again: the kernel's
copies are all that the client costs.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

_BUFFER_BYTES = 1024 * 1024
_HEAD_BYTES_MAX = 64 * 1024
_TIMEOUT_S = 120


class TransferFailed(Exception):
    """An answer that was not 200, or not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer: its status, how long it took and its body's size or, when kept, the body."""

    status: int
    seconds: float
    length: int
    body: bytes


class Client:
    """One keep-alive connection; answers must carry Content-Length."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self._host = host
        self._socket = socket.create_connection((name, int(port)), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_BUFFER_BYTES)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, target: str, *, keep: bool = False, method: str = "GET") -> Answer:
        """Receives an answer; the body is dropped unless kept. Raises TransferFailed."""
        began = time.perf_counter()
        self._socket.sendall(f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        return self._answer(began, keep=keep)

    def put(self, target: str, file: Path) -> Answer:
        """Sends a file. Raises TransferFailed."""
        fd = os.open(file, os.O_RDONLY)
        try:
            began = time.perf_counter()
            size = os.fstat(fd).st_size
            head = f"PUT {target} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {size}\r\n\r\n"
            self._socket.sendall(head.encode())
            sent = 0
            self._socket.settimeout(None)  # a blocking socket, for os.sendfile
            while sent < size:
                sent += os.sendfile(self._socket.fileno(), fd, sent, size - sent)
            self._socket.settimeout(_TIMEOUT_S)
            return self._answer(began, keep=False)
        finally:
            os.close(fd)

    def _answer(self, began: float, *, keep: bool) -> Answer:
        status, length, start = self._head()
        pieces = [start] if keep else []
        received = len(start)
        while received < length:
            count = self._socket.recv_into(self._buffer)
            if not count:
                raise TransferFailed(f"the answer broke after {received} of {length} bytes")
            received += count
            if keep:
                pieces.append(bytes(memoryview(self._buffer)[:count]))
        seconds = time.perf_counter() - began
        if not 200 <= status < 300:
            raise TransferFailed(f"status {status}: {b''.join(pieces)[:300]!r}")
        return Answer(status=status, seconds=seconds, length=received, body=b"".join(pieces))

    def _head(self) -> tuple[int, int, bytes]:
        head = b""
        while b"\r\n\r\n" not in head:
            more = self._socket.recv(_HEAD_BYTES_MAX)
            if not more or len(head) > _HEAD_BYTES_MAX:
                raise TransferFailed("no answer")
            head += more
        head, _, start = head.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b":", 1) for line in lines[1:])
        return int(lines[0].split()[1]), int(fields.get(b"content-length", b"0")), start
