"""A user of this machine for servers that log real users in: rights mean what they say, even where tests are root."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

_numbers = itertools.count()


class Account:
    """
    A throw-away user, or whoever runs the tests where that is not root.

    :param home: its home folder.
    """

    password = "s3cret-canary-pw"

    def __init__(self, home: Path) -> None:
        self.made = os.geteuid() == 0 and shutil.which("useradd") is not None
        self.home = home
        if not self.made:
            self.name = os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip()
            return
        self.name = f"amilitest{os.getpid()}x{next(_numbers)}"
        hashed = subprocess.check_output(["openssl", "passwd", "-6", self.password], text=True).strip()
        subprocess.run(
            ["useradd", "-M", "-d", str(home), "-s", "/bin/sh", "-p", hashed, self.name],
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
