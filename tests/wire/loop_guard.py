"""A guard that fails on calls which would block the event loop, for as long as the loop runs in this thread."""

from __future__ import annotations

import asyncio
import builtins
import io
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

import amili_provider.triggers.clients

BLOCKING: list[tuple[Any, str]] = [
    (builtins, "open"),
    (io, "open"),  # the same function, as pathlib knows it
    (os, "open"),
    (time, "sleep"),
    (subprocess, "Popen"),
    (socket, "getaddrinfo"),
    (socket, "gethostbyname"),
    (socket, "create_connection"),
    (ssl.SSLContext, "load_verify_locations"),
    (ssl.SSLContext, "load_default_certs"),
    (BaseHook, "get_connection"),
    (amili_provider.triggers.clients, "mask_secret"),
]


class BlockedError(AssertionError):
    """Something blocked the event loop."""


@contextmanager
def no_blocking(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse blocking calls in this thread while its event loop runs; yields those that were allowed in others."""
    elsewhere: list[str] = []
    mine = threading.current_thread()

    def guarded(name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is mine and _loop_is_running():
                raise BlockedError(f"{name} blocks the event loop")
            elsewhere.append(name)
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in BLOCKING:
            patch.setattr(owner, name, guarded(name, getattr(owner, name)))
        yield elsewhere


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
