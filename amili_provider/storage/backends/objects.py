"""
Object stores: keys in buckets, each listed, read, written and deleted as what it is.

There are no folders. A key may be empty between two slashes, end in a slash, or be called like what others begin with.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO, TypeVar, cast

from amili_provider.receipts import one_line
from amili_provider.storage.base import Entry, NotAsListedError, ObjectClient, object_entry
from amili_provider.storage.errors import WrongSettings
from amili_provider.storage.files import BLOCK_BYTES, Blocks
from amili_provider.storage.locations import Levels

THREADS = 16
"""Requests to a store that are on their way at once."""
_REPLACED = "it was replaced or written to since it was listed"
_NAMELESS = "its key ends in a slash, so that it has no name; copy it to a key that has one"
_PLAIN = frozenset({"", "identity", "aws-chunked"})
_SUFFIXES = {"gzip": (".gz", ".tgz"), "x-gzip": (".gz", ".tgz"), "br": (".br",), "zstd": (".zst",), "compress": (".z",)}
# What tools leave to remember an empty folder: the last is Hadoop's.
_MARKERS = ("/", "_$folder$")

T = TypeVar("T")


class ObjectFiles:
    """
    An object store, by paths of bucket and key. Safe to use from several threads.

    :param client: of the cloud's own library.
    """

    def __init__(self, client: ObjectClient) -> None:
        self._client = client
        self._threads = _threads()

    # What is there

    def info(self, path: str) -> Entry:
        """Return the object at *path*; :class:`FileNotFoundError` if there is none, or no such bucket."""
        return self._ask(lambda: self._client.stat(*_split(path)))

    def scan(self, path: str, *, flat: bool = False) -> Iterator[Entry]:
        """
        Yield what begins with *path*, without the markers of folders: objects, and folders, which end in a slash.

        :param path: a bucket, and the beginning of keys.
        :param flat: whether all objects come as such, however deep; then there are no folders.
        """
        bucket, prefix = _split(path)
        pages = self._client.pages(bucket, prefix, flat=flat)
        # An empty object may stand for a folder. What is below it comes later, if keys are in order.
        empty: dict[str, Entry] = {}
        last, in_order = "", True
        while (page := self._ask(lambda: next(pages, None))) is not None:
            objects, folders = page
            for found in (*(entry.path for entry in objects), *(f"{bucket}/{name}" for name in folders)):
                if not found.startswith(path):
                    raise OSError(f"the server lists {found!r:.200}, which does not begin with what was asked for")
            for entry in objects:
                in_order = in_order and last < entry.path
                last = entry.path
                # "0" is what comes after a slash: nothing below it comes any more.
                while in_order and empty and f"{next(iter(empty))}0" <= last:
                    yield empty.pop(next(iter(empty)))
                if empty:
                    for folder in _folders_of(entry.path):
                        empty.pop(folder, None)
                if entry.size:
                    yield replace(entry, fault=_NAMELESS) if entry.path.endswith("/") else entry
                elif entry.is_file and not entry.path.endswith(_MARKERS):
                    empty[entry.path] = entry
            for name in folders:
                empty.pop(f"{bucket}/{name[:-1]}", None)
                yield object_entry(f"{bucket}/{name}", 0, None, None, folder=True)
        yield from (one for one in empty.values() if in_order or not self.any_below(f"{one.path}/"))

    def any_below(self, path: str) -> bool:
        """Return whether any key begins with *path*, a marker too."""
        pages = self._client.pages(*_split(path), flat=False)
        while (page := self._ask(lambda: next(pages, None))) is not None:
            if page[0] or page[1]:
                return True
        return False

    # Their bytes

    def read(self, path: str, version: str | None = None, span: tuple[int, int] | None = None) -> bytes:
        """
        Return bytes of the object at *path*.

        :param version: the fingerprint that it must have.
        :param span: first byte, and the one after the last; None for all of them.
        :raises NotAsListedError: if it has another fingerprint.
        """
        try:
            return self._ask(lambda: self._client.read(*_split(path), version, span))
        except FileExistsError as error:
            raise NotAsListedError(_REPLACED) from error

    def open(self, path: str, size: int, version: str | None) -> BinaryIO:
        """Return a stream of an object of *size* bytes, of which some blocks are read ahead."""
        blocks = Blocks(lambda start, end: self.read(path, version, (start, end)), size, self.submit)
        return cast("BinaryIO", blocks)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do *work* in one of the threads."""
        return self._threads.submit(work)

    # Writing and deleting

    def create(self, path: str, stream: BinaryIO, size: int) -> None:
        """Write what *stream* gives, *size* bytes, to *path*; :class:`FileExistsError` if there is something."""
        self._write(path, stream, size, new=True)

    def put(self, path: str, data: bytes, *, new: bool) -> None:
        """Write *data* to *path*; if *new*, :class:`FileExistsError` if there is something."""
        self._write(path, io.BytesIO(data), len(data), new=new)

    def _write(self, path: str, stream: BinaryIO, size: int, *, new: bool) -> None:
        steady = cast("BinaryIO", _Steady(stream))
        self._ask(lambda: self._client.write(*_split(path), steady, size, new=new))

    def remove(self, path: str, version: str | None = None) -> None:
        """
        Delete the object at *path*.

        :param version: the fingerprint that it must have, where the store can tell.
        :raises NotAsListedError: if it has another.
        """
        try:
            self._ask(lambda: self._client.delete(*_split(path), version))
        except FileExistsError as error:
            raise NotAsListedError(_REPLACED) from error

    def make_folders(self, path: str) -> None:
        """Do nothing: there are no folders."""

    def close(self) -> None:
        """Close the connections and end the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = _threads()
        self._client.close()

    def _ask(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            # Each library has its own, and the client knows what they mean.
            if (meaning := self._client.meaning(error)) is error:
                raise
            raise meaning from error


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="amili-objects")  # each begins when it is needed


def refuse_encoded(key: str, encoding: str | None) -> None:
    """
    Raise if an object is stored in a *Content-Encoding* that its name does not tell: a reader would get other bytes.

    :param encoding: the header, as the store keeps it.
    """
    packed = {one.strip().casefold() for one in (encoding or "").split(",")} - _PLAIN
    if any(not key.casefold().endswith(_SUFFIXES.get(one, ())) for one in packed):
        raise WrongSettings(
            f"it is stored with Content-Encoding {one_line(encoding, 60)}, so its bytes are not those of the file; "
            f"store it without, or give it a name that tells"
        )


def refuse_other(version: str | None, got: object) -> None:
    """Raise if a server answers with another version than was asked for: some do not know the condition."""
    if version is not None and got and str(got).removeprefix("W/").strip('"') != version:
        raise NotAsListedError(_REPLACED)


def refuse_other_span(span: tuple[int, int] | None, told: str | None) -> None:
    """
    Raise if a server answers with another span than was asked for.

    :param told: the header ``Content-Range``; None if it gave all that there is.
    """
    if span is not None and not (told or "bytes 0-").startswith(f"bytes {span[0]}-"):
        raise OSError(f"the server gave {one_line(told, 60) if told else 'all of it'}, not what was asked for")


def asked_of(span: tuple[int, int] | None, length: Any) -> int | None:
    """Return how much of an answer of *length* bytes belongs to *span*; a server may give all that there is."""
    known = [one for one in (span and span[1] - span[0], length) if one is not None]
    return min(known, default=None)


class _Steady:
    """
    A stream that gives as much as it is asked for, as the libraries of the clouds expect.

    :param stream: which may give less, and need not know where it is.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0

    def read(self, most: int = -1) -> bytes:
        """Return the next *most* bytes, fewer only at the end; by default all that are left."""
        if most >= 0:
            data = read_fully(self._stream, most)
        else:
            data = b"".join(iter(lambda: self._stream.read(BLOCK_BYTES), b""))
        self._at += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at


def read_fully(stream: BinaryIO, most: int) -> bytes:
    """Return the next *most* bytes, fewer only at the end, however few *stream* gives at a time."""
    pieces, missing = [], most
    while missing > 0 and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key


def _folders_of(path: str) -> Iterator[str]:
    at = path.find("/", path.find("/") + 1)
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


_LITERAL = re.compile(r"[ -)+->@-Z\\-~]*")
"""What a level begins with that is one and the same in every spelling of Unicode: ASCII, but for wildcards."""


def look_at_key(files: ObjectFiles, path: str) -> Entry | None:
    """Return the object at *path*; a folder if there is none with content, but others below it; None if neither."""
    entry = None
    if "/" not in path:
        files.any_below(f"{path}/")  # whether there is such a bucket
        return object_entry(path, 0, None, None, folder=True)
    if not path.endswith("/"):
        try:
            entry = files.info(path)
        except FileNotFoundError:
            pass  # or its bucket does not exist, which the listing tells
        except Exception:
            # An answer to HEAD has no words, and 403 is also said of what is not there: a listing tells more.
            if next((one for one in files.scan(path) if one.path == path), None) is not None:
                raise
        if entry is not None and entry.size:
            return entry
    folder = path if path.endswith("/") else f"{path}/"
    return object_entry(path, 0, None, None, folder=True) if files.any_below(folder) else entry


def right_below(files: ObjectFiles, path: str) -> Iterator[Entry]:
    """Yield the objects in the folder *path*, none deeper; none if there are none, but their bucket must exist."""
    folder = path if path.endswith("/") else f"{path}/"
    return (entry for entry in files.scan(folder) if entry.is_file)


def matching(files: ObjectFiles, base: str, segments: list[str], *, any_case: bool = False) -> Iterator[Entry]:
    """
    Yield the objects below *base* that match a pattern; those below ``**`` in one listing.

    :param base: a bucket, and the levels before the first wildcard.
    :param segments: the levels from the first wildcard on.
    :param any_case: whether upper and lower case count as equal.
    """
    base += "/"
    levels, beginning = Levels(segments, any_case=any_case), _beginning(segments[0], any_case=any_case)
    if "**" in segments:
        for entry in files.scan(base + beginning, flat=True):
            states = levels.start()
            for name in entry.path[len(base) :].split("/"):
                states = levels.step(states, name, folder_link=False)
            if levels.matches(states):
                yield entry
        return
    folders = [(base, beginning, levels.start())]
    while folders:
        folder, beginning, states = folders.pop()
        for entry in files.scan(folder + beginning):
            name = entry.path[len(folder) :]
            reached = levels.step(states, name.removesuffix("/") if entry.is_folder else name, folder_link=False)
            if entry.is_folder and levels.goes_on(reached):
                folders.append((entry.path, "", reached))
            elif entry.is_file and levels.matches(reached):
                yield entry


def _beginning(segment: str, *, any_case: bool) -> str:
    """Return what every name that matches *segment* begins with, so that a store need not list the others."""
    plain = _LITERAL.match("" if any_case else unicodedata.normalize("NFC", segment))
    assert plain is not None
    return plain[0]
