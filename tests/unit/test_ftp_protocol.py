"""How servers without MLSD describe a file, and what of it can be relied on."""

from __future__ import annotations

import pytest

from amili_provider.storage.backends import ftp
from amili_provider.storage.backends.ftp_protocol import read_list, read_mlsd


@pytest.mark.parametrize(
    ("line", "name", "kind", "size"),
    [
        ("-rw-r--r--    1 1000     1000         1234 Nov 22 13:00 a.csv", "a.csv", "file", 1234),
        ("-rw-r--r--    1 ftp ftp 9876543210 Jan  1  2025 two  spaces.csv", "two  spaces.csv", "file", 9876543210),
        ("-rw-rw-r--+   1 a b 5 Nov  2 03:04  leading.csv", " leading.csv", "file", 5),
        ("drwxr-xr-x    2 0        0            4096 Nov 22 13:00 sub", "sub", "directory", 4096),
        ("lrwxrwxrwx    1 0 0 7 Nov 22 13:00 link -> target", "link", "unknown", 7),
        ("11-22-26  01:00PM                 1234 a b.csv", "a b.csv", "file", 1234),
        ("11-22-2026  13:00       <DIR>          sub", "sub", "directory", 0),
        ("-rw-r--r-- 1 p Domain Users 12 Nov 26 10:00 a 5 b.csv", "a 5 b.csv", "file", 12),
        ("-rw-r--r-- 1 My User Domain Users 12 Nov 26  2025 a.csv", "a.csv", "file", 12),
        ("-rw-r--r-- 1 p g 12 2026-11-26 10:00 a.csv", "a.csv", "file", 12),
        ("-rw-r--r-- 1 p g 12 26 nov. 10:00 a.csv", "a.csv", "file", 12),
        ("-rw-r--r-- 1 p g 12 26. Nov 10:00 a.csv", "a.csv", "file", 12),
        ("-rw-r--r-- 1 p g 12 août 26 10:00 a.csv", "a.csv", "file", 12),
        ("-rw-r--r-- 1 p g 12 11月 26 10:00 a.csv", "a.csv", "file", 12),
        ("-rw-r--r-- 1 p g 12 Nov 26 10:00 34 Nov 27 11:00 x.csv", "34 Nov 27 11:00 x.csv", "file", 12),
        ("11-22-26  01:00PM  <JUNCTION>     later [C:\\data\\later]", "later", "unknown", 0),
        ("11-22-26  01:00PM  <SYMLINK>      a.csv [b.csv]", "a.csv", "unknown", 0),
        ("QTMFTP         1234 26/11/21 10:00:00 *STMF      a b.csv", "a b.csv", "file", 1234),
        ("QTMFTP         4096 26/11/21 10:00:00 *DIR       sub/", "sub", "directory", 4096),
        ("QTMFTP              26/11/21 10:00:00 *MEM       FILE.MBR", "FILE.MBR", "unknown", 0),
    ],
)
def test_lines_of_unix_dos_and_ibm(line: str, name: str, kind: str, size: int) -> None:
    """Name, kind and size come out; the name keeps its blanks."""
    details = read_list(line, "/in")
    assert details is not None
    assert (details["name"], details["type"], details["size"]) == (f"/in/{name}", kind, size)
    assert details["etag"]


@pytest.mark.parametrize("line", ["total 12", "totalt 8", "insgesamt 8", "", "drwxr-xr-x 2 0 0 4096 Nov 22 13:00 ."])
def test_lines_that_are_no_files(line: str) -> None:
    """Totals, blank lines and the folder itself are left out."""
    assert read_list(line, "/in") is None


def test_a_line_that_cannot_be_read_is_an_error() -> None:
    """A file is never left out because its line is strange."""
    for line in ("something else entirely", "files 12", "-rw-r--r-- 1 p g 12 yesterday a.csv"):
        with pytest.raises(OSError, match=f"cannot be read: '{line}"):
            read_list(line, "/in")


@pytest.mark.parametrize(
    ("line", "name", "kind", "size", "modified"),
    [
        ("type=file;size=12;modify=20260101000000; a b.csv", "a b.csv", "file", 12, 1767225600.0),
        ("Type=file;Size=12;Modify=20260101000000.5; x;y=z.csv", "x;y=z.csv", "file", 12, 1767225600.5),
        ("type=dir;modify=20260101000000; sub", "sub", "directory", None, 1767225600.0),
        ("type=file;size=1; a.csv", "a.csv", "file", 1, None),
        ("type=file;size=; a.csv", "a.csv", "file", None, None),
        ("size=1; a.csv", "a.csv", "unknown", 1, None),
        ("type=OS.unix=slink:/x;size=1; a.csv", "a.csv", "unknown", 1, None),
        ("type=file;size=1; a; b.csv", "a; b.csv", "file", 1, None),
        ("type=file;UNIX.groupname=domain users;size=1; a b.csv", "a b.csv", "file", 1, None),
    ],
)
def test_lines_of_mlsd(line: str, name: str, kind: str, size: int | None, modified: float | None) -> None:
    """The facts of RFC 3659, in any case, before a name that may contain anything."""
    details = read_mlsd(line, "/in")
    assert details is not None
    assert details["name"] == f"/in/{name}"
    assert (details["type"], details["size"], details["mtime"]) == (kind, size, modified)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("550 No such file or directory.", FileNotFoundError),
        ("550 Permission denied.", PermissionError),
        ("550 Not enough privileges.", PermissionError),
        ("501 No such directory.", FileNotFoundError),
        ("553 Could not create file.", PermissionError),
        ("552 Quota exceeded.", OSError),
    ],
)
def test_refusals_by_what_they_say(answer: str, expected: type[OSError]) -> None:
    """The server's words decide what a refusal is."""
    import ftplib

    assert type(ftp._refusal(ftplib.error_perm(answer), "/in/a.csv")) is expected
