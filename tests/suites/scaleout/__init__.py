"""Proof on a real cluster that a day spreads over workers."""
