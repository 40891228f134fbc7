"""One module for each kind of storage, all on the port of ``storage/base.py``."""

from __future__ import annotations
