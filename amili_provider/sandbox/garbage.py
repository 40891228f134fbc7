"""Nonsensical answers to an upload, each by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]

_HUGE_BYTES = 10 * 1024 * 1024


def _as_json(answer: Any) -> bytes:
    return json.dumps(answer).encode()


def _with_files(change: Callable[[list[Answer]], Any]) -> Callable[[Answer], bytes]:
    def changed(answer: Answer) -> bytes:
        answer = copy.deepcopy(answer)
        answer["files"] = change(answer.get("files") or [])
        return _as_json(answer)

    return changed


def _every_file(**words: Any) -> Callable[[Answer], bytes]:
    return _with_files(lambda files: [{**f, **words} for f in files])


def _contradictory(files: list[Answer]) -> list[Answer]:
    return [*files, *({**f, "status": "FAILED", "result": "REJECTED"} for f in files[:1])]


GARBAGE: dict[str, Callable[[Answer], bytes]] = {
    "html": lambda _answer: b"<!doctype html><title>Gateway</title><h1>Something went wrong</h1>",
    "empty": lambda _answer: b"",
    "spaces": lambda _answer: b" \r\n\t ",
    "truncated": lambda answer: _as_json(answer)[:-20],
    "huge": lambda answer: _as_json({**answer, "message": "x" * _HUGE_BYTES}),
    "not-utf8": lambda answer: _as_json(answer).replace(b'"message"', b'"mess\xff\xfeage"'),
    "deep": lambda _answer: b'{"files":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "null": lambda _answer: b"null",
    "list": lambda answer: _as_json([answer]),
    "text": lambda _answer: b'"File(s) uploaded"',
    "nan": lambda answer: _as_json({**answer, "clientNo": float("nan")}),
    "no-files": lambda answer: _as_json({k: v for k, v in answer.items() if k != "files"}),
    "files-not-a-list": _with_files(lambda files: {str(f.get("fileId")): f for f in files}),
    "files-null": _with_files(lambda _files: None),
    "files-of-text": _with_files(lambda files: [str(f.get("fileId")) for f in files]),
    "missing-file": _with_files(lambda files: files[1:]),
    "other-ids": _with_files(lambda files: [{**f, "fileId": f"other-{n}"} for n, f in enumerate(files)]),
    "no-ids": _with_files(lambda files: [{k: v for k, v in f.items() if k != "fileId"} for f in files]),
    "unknown-words": _every_file(status="ARRIVED", result="NOTED"),
    "half-words": _every_file(result=None),
    "numbers-for-words": _every_file(status=200, result=201),
    "contradictory": _with_files(_contradictory),
    "refused-as-a-whole": lambda answer: _as_json({**answer, "status": "FAILED", "result": "REJECTED"}),
    "all-refused": _every_file(status="FAILED", result="REJECTED", message="File refused"),
}
"""Name to the function that turns the ordinary answer into bytes."""
