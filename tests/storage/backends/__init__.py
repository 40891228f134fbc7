"""Real storage servers on loopback, each behind a wire that can be cut, and what a test may do to them."""
