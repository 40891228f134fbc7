"""Bearer tokens by client credentials, as the token service hands them out."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

RESOURCE = "00000000-0000-4000-8000-00000000a311"


class Tokens:
    """
    The token service of a sandbox.

    :param client_id: the only client id that is known.
    :param client_secret: its secret.
    :param lifetime: seconds that a token lives.
    :param clock: the time.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        lifetime: float = 3600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.client_id = client_id
        self._client_secret = client_secret
        self._first_lifetime = lifetime
        self._clock = clock
        self._expiry: dict[str, float] = {}
        self.reset()

    def reset(self) -> None:
        """Go back to the first settings, and forget all tokens."""
        self.lifetime = self._first_lifetime
        self.numbers_as_text = False
        """Whether numbers come as strings, as they do from some token services."""
        self.minted = 0
        self._expiry.clear()

    def grant(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer a token request: its status and body."""
        if form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type", "error_description": "Use client_credentials"}
        known = hmac.compare_digest(form.get("client_id", "").encode(), self.client_id.encode())
        right = hmac.compare_digest(form.get("client_secret", "").encode(), self._client_secret.encode())
        if not (known and right):
            return 401, {"error": "invalid_client", "error_description": "Unknown client or wrong secret"}
        return 200, self._mint()

    def _mint(self) -> dict[str, Any]:
        now, token = self._clock(), secrets.token_urlsafe(32)
        self._expiry[token] = now + self.lifetime
        self.minted += 1
        numbers = {
            "not_before": int(now),
            "expires_in": int(self.lifetime),
            "expires_on": int(now + self.lifetime),
        }
        shown = {k: str(v) for k, v in numbers.items()} if self.numbers_as_text else numbers
        return {"access_token": token, "token_type": "Bearer", **shown, "resource": RESOURCE}

    def admit(self, token: str, lifetime: float = 3600) -> None:
        """Let a ready-made token in."""
        self._expiry[token] = self._clock() + lifetime

    def is_valid(self, authorization: str | None) -> bool:
        """Whether the header ``Authorization`` carries a token that lives."""
        scheme, _, token = (authorization or "").partition(" ")
        return scheme.casefold() == "bearer" and self._expiry.get(token.strip(), 0.0) > self._clock()

    def expire_all(self) -> None:
        """Make every token that was handed out so far invalid."""
        self._expiry.clear()
