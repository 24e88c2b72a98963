"""Files below one folder, reached component by component: no `..`, no link, nothing but regular files and folders.

Each component is opened by its own name with O_NOFOLLOW: whoever swaps a folder for a link at any moment gets an error,
not a way out of the workspace.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from harness.regular_file import NotRegular, RegularFile, opened
from harness.tools.refusal import ToolRefused

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PROTECTED = frozenset({".git"})
"""Hooks and settings in there are run by others, outside of any sandbox."""


class WorkspaceFiles:
    """The files of the workspace at `root`. All paths are the model's; every method blocks, and raises ToolRefused."""

    def __init__(self, root: Path, hidden: Sequence[Path] = ()) -> None:
        """`hidden` folders are refused, should they be inside the workspace."""
        self.root = Path(os.path.realpath(root))
        self._hidden = tuple(Path(os.path.realpath(folder)) for folder in hidden)

    def parts(self, given: str) -> tuple[str, ...]:
        """The path's components below the root; an absolute path counts when it begins with the root. Pure."""
        path = PurePosixPath(given)
        if path.is_absolute():
            try:
                path = path.relative_to(PurePosixPath(self.root))
            except ValueError:
                raise ToolRefused(f"{given}: outside of the workspace {self.root}") from None
        if ".." in path.parts:
            raise ToolRefused(f"{given}: `..` is not allowed; name the path from the workspace")
        if any(self.root.joinpath(path).is_relative_to(folder) for folder in self._hidden):
            raise ToolRefused(f"{given}: is Cody's own and not part of the workspace")
        return path.parts

    def read(self, given: str, max_bytes: int) -> bytes:
        """The whole file; refused when it has more than `max_bytes`."""
        with self.reading(given) as file:
            if file.size > max_bytes:
                raise ToolRefused(f"{given}: has {file.size} bytes; more than {max_bytes} are not taken")
            return file.read(0, max_bytes)

    @contextmanager
    def reading(self, given: str) -> Iterator[RegularFile]:
        """The regular file, open."""
        path = self.root.joinpath(*self._named(given))
        with _explained(given), opened(path) as file:
            yield file

    @contextmanager
    def folder(self, given: str) -> Iterator[int]:
        """A descriptor of the folder."""
        with _explained(given):
            descriptor = self._open_folder(self.parts(given), make=False)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def exists(self, given: str) -> bool:
        """Whether anything is there, a dead link included."""
        *above, name = self._named(given)
        try:
            descriptor = self._open_folder(tuple(above), make=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _refusal(given, error) from None
        try:
            os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            return True
        except FileNotFoundError:
            return False
        finally:
            os.close(descriptor)

    def writable(self, given: str) -> None:
        """Raises ToolRefused for a path that must not be changed."""
        if found := PROTECTED.intersection(part.casefold() for part in self._named(given)):
            raise ToolRefused(f"{given}: {', '.join(found)} must not be changed by this tool")

    def write(self, given: str, data: bytes, *, new: bool) -> None:
        """Put the file there at once, whole; its mode stays. `new`: it must not exist, and its folders are made."""
        self.writable(given)
        *above, name = self._named(given)
        with _explained(given):
            descriptor = self._open_folder(tuple(above), make=new)
            try:
                _write(descriptor, name, data, new=new)
            finally:
                os.close(descriptor)

    def remove(self, given: str) -> None:
        self.writable(given)
        *above, name = self._named(given)
        with _explained(given):
            descriptor = self._open_folder(tuple(above), make=False)
            try:
                _require_regular(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
                os.unlink(name, dir_fd=descriptor)
            finally:
                os.close(descriptor)

    def _named(self, given: str) -> tuple[str, ...]:
        parts = self.parts(given)
        if not parts:
            raise ToolRefused(f"{given}: is the workspace itself, not a file")
        return parts

    def _open_folder(self, parts: tuple[str, ...], *, make: bool) -> int:
        current = os.open("/", _FOLDER)
        for place, name in enumerate((*self.root.parts[1:], *parts)):
            try:
                if make and place >= len(self.root.parts) - 1:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=current)
                below = os.open(name, _FOLDER, dir_fd=current)
            finally:
                os.close(current)
            current = below
        return current


def _write(folder: int, name: str, data: bytes, *, new: bool) -> None:
    """By a second file that takes the name: a reader, or a crash, sees the old content or the new, nothing between."""
    mode = None
    if not new:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        _require_regular(status)
        mode = stat.S_IMODE(status.st_mode)
    draft = f".{name[:100]}.{secrets.token_hex(6)}.tmp"
    fd = os.open(draft, _NEW_FILE, 0o666, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        if new:
            # A link, not a rename: it fails where something has taken the name meanwhile.
            os.link(draft, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        else:
            os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        raise
    os.unlink(draft, dir_fd=folder)


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(errno.EINVAL, "is not a regular file")


@contextmanager
def _explained(given: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refusal(given, error) from None


def _refusal(given: str, error: OSError) -> ToolRefused:
    match error:
        case NotRegular():
            return ToolRefused(f"{given}: {error.strerror}")
        case OSError(errno=errno.ENOENT):
            return ToolRefused(f"{given}: does not exist")
        case OSError(errno=errno.EEXIST):
            return ToolRefused(f"{given}: exists already")
        case OSError(errno=errno.ELOOP | errno.ENOTDIR):
            return ToolRefused(f"{given}: a part of the path is a symbolic link or no folder")
        case _:
            return ToolRefused(f"{given}: {error.strerror or error}")
