"""Instruments: what is run on purpose, and is no test of the rings."""
