"""What can be told before gradio and torch are imported: paths, port, folder of temporary files. A typo costs no minute."""

import os
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from app.evidence.sources import files_of
from app.settings import Settings
from bitune.base.local import EMBEDDED, cache_folder, check_base
from bitune.checkpoints.places import check_checkpoint
from bitune.errors import ConfigError, disk_failure


def check(settings: Settings) -> None:
    """BituneError for the first thing with which the page would fail later."""
    check_sources(settings)
    for source in settings.data:
        files_of(source)
    if settings.mcp and find_spec("mcp") is None:
        raise ConfigError("--mcp needs a package that is not installed; get it with: pip install 'gradio[mcp]'")
    check_temporary_folder()
    available_port(settings)


def check_sources(settings: Settings) -> None:
    """BituneError for a base or a checkpoint that is not there, as far as files on this disk tell."""
    if check_base(settings.base) is None and settings.base == EMBEDDED.name:
        cache_folder()
    for source in settings.checkpoints:
        check_checkpoint(source)


def check_temporary_folder() -> None:
    """ConfigError where nobody, or only Gradio, cannot write temporary files."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ConfigError(f"{error.strerror}; set TMPDIR to a folder that can be written, on a disk with room.") from error
    folder = temporary_folder()
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        failure = disk_failure(error)
        raise ConfigError(
            f"The page cannot keep temporary files in {folder}: {failure.cause}; {failure.remedy}, or set GRADIO_TEMP_DIR to "
            "another one."
        ) from error


def temporary_folder() -> str:
    """Where Gradio keeps temporary files: its own function for it takes seconds to import."""
    return os.environ.get("GRADIO_TEMP_DIR") or str((Path(tempfile.gettempdir()) / "gradio").resolve())


def available_port(settings: Settings) -> int:
    """The port to listen on, a free one for port 0; ConfigError where nobody can listen at this address."""
    try:
        address = socket.getaddrinfo(settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(*address[:3]) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address[4])
            return tried.getsockname()[1]
    except (OSError, UnicodeError) as error:  # a name that no network has
        raise cannot_listen(settings, error) from error


def cannot_listen(settings: Settings, error: OSError | UnicodeError) -> ConfigError:
    """The sentence about an address at which nobody can listen."""
    cause = str(error).rstrip(".")
    return ConfigError(f"The page cannot listen on {settings.host}, port {settings.port}: {cause}; choose another with --port.")
