"""How a server shows that it is the one that wrote `server.json`: by a key that is in that file, and nowhere else. Pure.

The file outlives a server that was killed, and its port is free then: any program, another user's too, may answer there.
"""

from __future__ import annotations

import hmac
import secrets

KEY_BYTES = 32
MAX_NONCE = 128
"""Characters."""


def new_key() -> str:
    """For one life of one server. Random, and no token's: what is answered to strangers helps nobody to guess a token."""
    return secrets.token_urlsafe(KEY_BYTES)


def new_nonce() -> str:
    """Never asked before, so that no earlier answer fits."""
    return secrets.token_urlsafe(KEY_BYTES)


def proof_of(key: str, url: str, nonce: str) -> str:
    """What only who has the key can answer to this nonce. `url` is the server's own: no other server's answer fits."""
    return hmac.new(key.encode(), f"cody-server\n{url}\n{nonce}".encode(), "sha256").hexdigest()


def is_proof(given: object, key: str, url: str, nonce: str) -> bool:
    """Whether this is the answer; whatever it is, it takes the same time."""
    text = given if isinstance(given, str) else ""
    return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), proof_of(key, url, nonce).encode())
