"""A user of this machine for servers that log real users in: rights mean what they say, even where tests are root."""

from __future__ import annotations

import itertools
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from tests.storage.backends.base import program

_numbers = itertools.count()


class Account:
    """
    A throw-away user, or whoever runs the tests where that is not root: then no password of theirs is known.

    :param home: its home folder.
    """

    password = "s3cret-canary-pw"

    def __init__(self, home: Path) -> None:
        self.made = os.geteuid() == 0
        if not self.made:
            try:
                self.name = pwd.getpwuid(os.geteuid()).pw_name
            except KeyError:
                pytest.skip("whoever runs the tests has no name on this machine, so no server logs them in")
            return
        useradd = program("useradd", "apt-get install passwd, or run the tests as another user than root")
        openssl = program("openssl", "apt-get install openssl")
        self.name = f"amilitest{os.getpid()}x{next(_numbers)}"
        hashed = subprocess.check_output([openssl, "passwd", "-6", self.password], text=True).strip()
        subprocess.run(
            [useradd, "-M", "-d", str(home), "-s", "/bin/sh", "-p", hashed, self.name],
            check=True,
            capture_output=True,
        )

    def own(self, path: Path) -> None:
        """Give *path* and all below to this user."""
        if self.made:
            subprocess.run(["chown", "-R", f"{self.name}:", str(path)], check=True)

    def remove(self) -> None:
        """Delete the user."""
        if self.made:
            subprocess.run(["userdel", self.name], check=False, capture_output=True)
