"""A typed client of Cody's server: REST and the live event stream."""

from cody.client.api import CodyClient
from cody.client.discovery import find_server, token_for
from cody.client.errors import ApiError, ServerUnreachable

__all__ = ["ApiError", "CodyClient", "ServerUnreachable", "find_server", "token_for"]
