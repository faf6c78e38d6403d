"""Which checkpoints may be named from the page, and their files: on this computer, or on the Hub. Knows no Gradio and no engine."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.ui.checks import MAX_NAME, shown
from bitune.checkpoints.files import ADAPTER_CONFIG, CARD_FILE, CONFIG_FILE, LOG_FILE, MIXING_FILE, REFERENCE_FILE
from bitune.checkpoints.places import local_folder
from bitune.errors import BituneError, CheckpointError, ConfigError

MAX_SOURCE = 1000  # characters: of a path
# What the Hub names a repository and, behind @, a commit, a tag or a branch; the library checks the rest.
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@\w[\w.-]*(/[\w.-]+)*)?", re.ASCII)
# What says what a checkpoint is, and what is there besides its adapters; more of a repository is not fetched, whatever it holds.
SMALL = (CONFIG_FILE, REFERENCE_FILE, ADAPTER_CONFIG, f"*/{ADAPTER_CONFIG}")
BESIDE = (MIXING_FILE, LOG_FILE, CARD_FILE)


@dataclass(frozen=True)
class Files:
    """A checkpoint on this disk. `repository`: of the Hub, in whose cache the files lie; None for a folder that somebody has named."""

    source: str
    folder: Path
    repository: str | None = None

    @contextmanager
    def named_by_source(self) -> Iterator[None]:
        """Sentences of errors name the repository in place of the folder of this computer in which its files are kept."""
        try:
            yield
        except BituneError as error:
            if self.repository is None or str(self.folder) not in str(error):
                raise
            raise type(error)(str(error).replace(str(self.folder), self.source)) from error


def checked_source(source: object, *, folders: bool) -> str:
    """What somebody wrote into the field, as far as its form tells.

    Args:
        source: Anything.
        folders: Whether folders of this computer may be named.

    Raises:
        CheckpointError: It cannot be a checkpoint's, or not one that may be named here.
    """
    text = source.strip() if isinstance(source, str) else ""
    if not text:
        raise CheckpointError("No checkpoint is named; write a Hub id like 'user/name'" + (", or a folder." if folders else "."))
    if len(text) > MAX_SOURCE:
        raise CheckpointError(
            f"The checkpoint's name has {len(text):,} characters; a Hub id or a path has at most {MAX_SOURCE:,}."
        )
    if not folders and not HUB_ID.fullmatch(text):
        raise CheckpointError(f"{shown(text)} is no Hub id, and this page loads from the Hub alone; write one like 'user/name'.")
    return text


def checked_name(name: object) -> str:
    """The name that somebody wants, "" where they leave it to the page; ConfigError for what is none."""
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"The name must be text; got {shown(name)}.")
    text = (name or "").strip()
    if len(text) > MAX_NAME or not text.isprintable():
        raise ConfigError(f"The name {shown(text)} is too long or holds what cannot be seen; choose a short one.")
    return text


def local_files(source: str, *, folders: bool) -> Files | None:
    """A folder of this computer, if it is one and may be; CheckpointError for what can be no Hub id either."""
    if not folders:
        return None
    folder = local_folder(source)
    return None if folder is None else Files(source, folder)


def small_files(source: str) -> Files:
    """The JSON files of a repository, from the Hub or its cache; CheckpointError where they cannot be had."""
    from bitune.checkpoints.folder import hub_checkpoint  # imports torch, and the page opens before that

    return Files(source, hub_checkpoint(source, SMALL), source.partition("@")[0])


def all_files(small: Files) -> Files:
    """All that is read of the same commit."""
    from bitune.checkpoints.folder import hub_checkpoint
    from bitune.checkpoints.size import adapter_files

    patterns = (*SMALL, *BESIDE, *adapter_files(small.folder))
    return Files(small.source, hub_checkpoint(f"{small.repository}@{small.folder.name}", patterns), small.repository)
