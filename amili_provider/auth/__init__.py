"""Who we are: ``flows`` put a token on requests and renew it, ``token_service`` asks for one and reads it."""

from __future__ import annotations

from amili_provider.auth.flows import BearerAuth, ClientCredentialsAuth, OnToken
from amili_provider.auth.token_service import TOKEN_TIMEOUT_SECONDS, Token, is_token_request

__all__ = ["TOKEN_TIMEOUT_SECONDS", "BearerAuth", "ClientCredentialsAuth", "OnToken", "Token", "is_token_request"]
