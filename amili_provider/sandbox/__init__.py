"""A local Amili to try, develop and test against."""

from __future__ import annotations
