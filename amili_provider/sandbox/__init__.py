"""
A local Amili to try, develop and test against; it shares no code with the client side.

``amili-sandbox serve`` and ``amili-sandbox demo`` on the command line,
:class:`~amili_provider.sandbox.server.SandboxServer` in Python, the fixture ``amili_sandbox`` of
``amili_provider.sandbox.pytest_plugin`` in tests.
"""

from __future__ import annotations
