"""
A process that serves a folder as S3, as cheaply as a process can: objects leave by ``sendfile``.

Run as ``python -m tests.suites.benchmarks.objects FOLDER [--latency SECONDS] [--rate BYTES_PER_SECOND]``. A Python S3
server reads whole objects for every ranged request, so measuring against one would measure the server. This one knows
what the measurements need: get (ranges, If-Match), head, list, put (If-None-Match), delete. Latency is added to each
request and the rate bounds each connection, as a network does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import threading
import time
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

_SLICE_BYTES = 1024 * 1024


class ObjectServer:
    """
    Serves the folders below *root* as buckets.

    :param root: the folder.
    :param latency: seconds that each request waits.
    :param rate: bytes per second of one connection; 0 for no bound.
    """

    def __init__(self, root: Path, *, latency: float = 0.0, rate: float = 0.0) -> None:
        self._root = str(root)
        self._latency = latency
        self._rate = rate
        self._listings: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def serve(self, listener: socket.socket) -> None:
        """Answer for ever."""
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            buffered = b""
            while True:
                while (end := buffered.find(b"\r\n\r\n")) < 0:
                    more = connection.recv(65536)
                    if not more:
                        return
                    buffered += more
                head, buffered = buffered[:end].decode("latin-1"), buffered[end + 4 :]
                request, *lines = head.split("\r\n")
                method, target, _ = request.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
                if "100-continue" in headers.get("expect", ""):
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                length = int(headers.get("content-length", "0"))
                while len(buffered) < length:
                    more = connection.recv(1024 * 1024)
                    if not more:
                        return
                    buffered += more
                body, buffered = buffered[:length], buffered[length:]
                if self._latency:
                    time.sleep(self._latency)
                url = urlsplit(target)
                path, query = unquote(url.path).lstrip("/"), parse_qs(url.query, keep_blank_values=True)
                getattr(self, f"_{method.lower()}")(connection, path, query, headers, body)

    def _answer(
        self, connection: socket.socket, status: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> None:
        lines = "".join(f"{k}: {v}\r\n" for k, v in {"Content-Length": str(len(body)), **(headers or {})}.items())
        connection.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)

    def _refuse(self, connection: socket.socket, status: str, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._answer(connection, status, {"Content-Type": "application/xml"}, body)

    def _facts(self, path: str) -> tuple[os.stat_result, dict[str, str]]:
        status = os.stat(os.path.join(self._root, path))  # noqa: PTH116,PTH118 - measured: pathlib costs more than stat
        etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}"'
        return status, {"ETag": etag, "Last-Modified": formatdate(status.st_mtime, usegmt=True)}

    def _head(self, connection: socket.socket, path: str, _query: object, _headers: object, _body: object) -> None:
        try:
            status, facts = self._facts(path)
        except FileNotFoundError:
            return self._answer(connection, "404 Not Found")
        if "/" in path and not os.path.isfile(os.path.join(self._root, path)):  # noqa: PTH113,PTH118
            return self._answer(connection, "404 Not Found")
        return self._answer(connection, "200 OK", {**facts, "Content-Length": str(status.st_size)})

    def _get(
        self, connection: socket.socket, path: str, query: dict[str, list[str]], headers: dict[str, str], _body: object
    ) -> None:
        bucket, _, key = path.partition("/")
        if not key:
            if not os.path.isdir(os.path.join(self._root, bucket)):  # noqa: PTH112,PTH118
                return self._refuse(connection, "404 Not Found", "NoSuchBucket")
            return self._list(connection, bucket, query)
        try:
            descriptor = os.open(os.path.join(self._root, path), os.O_RDONLY)  # noqa: PTH118
        except (FileNotFoundError, IsADirectoryError):
            return self._refuse(connection, "404 Not Found", "NoSuchKey")
        try:
            status, facts = self._facts(path)
            if headers.get("if-match", facts["ETag"]).strip('"') != facts["ETag"].strip('"'):
                return self._refuse(connection, "412 Precondition Failed", "PreconditionFailed")
            first, end, words = 0, status.st_size, "200 OK"
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
                first = int(match[1])
                end = min(end, int(match[2]) + 1) if match[2] else end
                words = "206 Partial Content"
                facts["Content-Range"] = f"bytes {first}-{end - 1}/{status.st_size}"
            lines = "".join(f"{k}: {v}\r\n" for k, v in {**facts, "Content-Length": str(end - first)}.items())
            connection.sendall(f"HTTP/1.1 {words}\r\n{lines}\r\n".encode(), socket.MSG_MORE)
            self._send(connection, descriptor, first, end)
        finally:
            os.close(descriptor)

    def _send(self, connection: socket.socket, descriptor: int, first: int, end: int) -> None:
        began, start = time.monotonic(), first
        while first < end:
            first += os.sendfile(connection.fileno(), descriptor, first, min(end - first, _SLICE_BYTES))
            if self._rate and (ahead := (first - start) / self._rate - (time.monotonic() - began)) > 0:
                time.sleep(ahead)

    def _list(self, connection: socket.socket, bucket: str, query: dict[str, list[str]]) -> None:
        """Answer ListObjectsV2, with one level of folders where a delimiter is given."""
        prefix = query.get("prefix", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        most = int(query.get("max-keys", ["1000"])[0])
        folder = prefix.rpartition("/")[0]
        base = os.path.join(self._root, bucket, folder)  # noqa: PTH118
        names: list[tuple[str, os.stat_result | None]] = []
        if os.path.isdir(base):  # noqa: PTH112
            with self._lock:
                if not after or base not in self._listings:
                    self._listings[base] = sorted(os.listdir(base))  # noqa: PTH208
                listed = self._listings[base]
            for name in listed:
                key = f"{folder}/{name}" if folder else name
                if not key.startswith(prefix) or key <= after:
                    continue
                status = os.stat(os.path.join(base, name))  # noqa: PTH116,PTH118
                is_folder = os.path.isdir(os.path.join(base, name))  # noqa: PTH112,PTH118
                names.append((key, None if is_folder else status))
                if len(names) > most:
                    break
        truncated = len(names) > most
        names = names[:most]
        parts = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(names)}</KeyCount>",
            f"<MaxKeys>{most}</MaxKeys><IsTruncated>{str(truncated).lower()}</IsTruncated>",
        ]
        encode = quote if query.get("encoding-type") == ["url"] else escape
        for key, listed_as in names:
            if listed_as is None:
                parts.append(f"<CommonPrefixes><Prefix>{encode(key)}/</Prefix></CommonPrefixes>")
                continue
            moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(listed_as.st_mtime))
            parts.append(
                f"<Contents><Key>{encode(key)}</Key><LastModified>{moment}</LastModified>"
                f"<ETag>&quot;{listed_as.st_ino:x}-{listed_as.st_mtime_ns:x}&quot;</ETag><Size>{listed_as.st_size}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        if "encoding-type" in query:
            parts.append("<EncodingType>url</EncodingType>")
        if truncated:
            parts.append(f"<NextContinuationToken>{escape(names[-1][0])}</NextContinuationToken>")
        parts.append("</ListBucketResult>")
        self._answer(connection, "200 OK", {"Content-Type": "application/xml"}, "".join(parts).encode())

    def _put(self, connection: socket.socket, path: str, _query: object, headers: dict[str, str], body: bytes) -> None:
        if headers.get("content-encoding", "").startswith("aws-chunked"):
            body = _unchunked(body)
        target = Path(self._root, path)
        if "/" not in path:
            target.mkdir(exist_ok=True)
            return self._answer(connection, "200 OK")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{threading.get_ident()}.{target.name}")
        draft.write_bytes(body)
        try:
            if headers.get("if-none-match") == "*":
                os.link(draft, target)
            else:
                os.replace(draft, target)  # noqa: PTH105
                return self._answer(connection, "200 OK", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        except FileExistsError:
            draft.unlink()
            return self._refuse(connection, "412 Precondition Failed", "PreconditionFailed")
        draft.unlink()
        return self._answer(connection, "200 OK", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def _delete(self, connection: socket.socket, path: str, _query: object, _headers: object, _body: object) -> None:
        Path(self._root, path).unlink(missing_ok=True)
        self._answer(connection, "204 No Content")


def _unchunked(body: bytes) -> bytes:
    """Return the content of an ``aws-chunked`` body."""
    content, position = b"", 0
    while position < len(body):
        line_end = body.index(b"\r\n", position)
        size = int(body[position:line_end].split(b";")[0], 16)
        if not size:
            break
        content += body[line_end + 2 : line_end + 2 + size]
        position = line_end + 4 + size
    return content


def _end_with_parent(parent: int) -> None:
    ended = threading.Event()
    while os.getppid() == parent:
        ended.wait(0.5)
    os._exit(0)


def main() -> None:
    """Listen on a free port, print it, and answer until the parent is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0)
    asked = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - how the parent learns it
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    ObjectServer(asked.folder, latency=asked.latency, rate=asked.rate).serve(listener)


if __name__ == "__main__":
    main()
