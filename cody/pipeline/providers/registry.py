"""Providers by name. Their SDKs take a second to import and 40 MB to hold, so each is loaded when it is first asked."""

from __future__ import annotations

import asyncio
import importlib
from typing import cast

from cody.errors import ConfigurationError, InvalidRequest
from cody.pipeline.providers.driving import DEFAULT_TIMEOUT_S, Provider

_CLASSES = {
    "anthropic": ("cody.pipeline.providers.anthropic", "AnthropicProvider"),
    "openai": ("cody.pipeline.providers.openai", "OpenAIProvider"),
}
PROVIDER_IDS = tuple(_CLASSES)


async def open_provider(
    provider_id: str, *, api_key: str, base_url: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Provider:
    """The provider, ready to be asked; `base_url` None = its own. Close it with `aclose()`.

    `timeout_s` is the longest silence that is borne. Raises InvalidRequest for a name that is not known, and
    ConfigurationError for an empty key.
    """
    if provider_id not in _CLASSES:
        known = ", ".join(PROVIDER_IDS)
        raise InvalidRequest(f"no provider {provider_id!r} (known: {known})", details={"field": "providerId"})
    key = api_key.strip()
    if not key:
        raise ConfigurationError(f"no key for {provider_id}: set {provider_id.upper()}_API_KEY")
    module, name = _CLASSES[provider_id]
    loaded = await asyncio.to_thread(importlib.import_module, module)  # streams go on meanwhile
    return cast("Provider", getattr(loaded, name)(api_key=key, base_url=base_url, timeout_s=timeout_s))
