"""Operators for Amili."""

from __future__ import annotations
