"""A typed client of Cody's server: REST and the live event stream."""

from cody.client.api import CodyClient
from cody.client.discovery import find_server
from cody.client.errors import ApiError, ServerUnreachable
from cody.client.folder_token import FolderToken, credential_for, token_for

__all__ = ["ApiError", "CodyClient", "FolderToken", "ServerUnreachable", "credential_for", "find_server", "token_for"]
