"""``amili-sandbox demo``: the main job in one command, from files on S3 to receipts, on this machine only."""

from __future__ import annotations

import importlib.util
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NEEDED = ("airflow", "boto3", "moto", "flask")


def demo(*, large: bool, keep: bool = False) -> int:
    """
    Run the demo.

    :param large: whether one of the files has several hundred MB.
    :param keep: whether all stays as it is until the person stops it.
    :returns: the exit code: 0 only if what arrived is what was sent.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"The demo needs {', '.join(missing)}: pip install 'airflow-provider-amili[demo]'"
        print(message, file=sys.stderr)  # noqa: T201 - a command talks to a person
        return 2
    from amili_provider.sandbox.demo.show import Show

    before = {number: signal.signal(number, _stop) for number in _SIGNALS}
    try:
        with tempfile.TemporaryDirectory(prefix="amili-demo-", ignore_cleanup_errors=True) as folder:
            return Show(Path(folder), large=large, keep=keep).run()
    except KeyboardInterrupt:
        print("\nStopped; everything that was started has ended.", file=sys.stderr)  # noqa: T201
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the clearing up.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
