"""The upload's algorithm: list, identify, send, judge, settle."""

from __future__ import annotations
