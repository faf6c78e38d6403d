"""The Hugging Face Hub: everything that is fetched from it and sent to it, and the words for what is known to go wrong there.

Knows repositories and files, no model. The other rooms call huggingface_hub only through this module.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import get_session
from tqdm import tqdm

from bitune import cancellation
from bitune.errors import BituneError, Failure, disk_failure, reason
from bitune.progress import Activity, doing

HUB_TIMEOUT = 5.0
"""Seconds within which the Hub has to answer at all; its own retries take half a minute."""


def probe_hub() -> None:
    """Return if the Hub's address answers anything within HUB_TIMEOUT seconds, else raise what its client raises."""
    with doing("Asking the Hub"):
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)


def download_snapshot(
    repository: str,
    revision: str | None,
    patterns: Sequence[str],
    *,
    ignore: Sequence[str] = (),
    local_files_only: bool = False,
) -> Path:
    """The folder of a model repository in the local Hub cache, after what is missing there was downloaded.

    Args:
        repository: `user/name`.
        revision: a branch, tag or commit; None for the default branch.
        patterns: globs of the files that are wanted; `*` matches `/` too.
        ignore: globs of files that are not, whatever `patterns` says.
        local_files_only: ask nothing of the Hub; then huggingface_hub raises LocalEntryNotFoundError for what is not there.

    Returns:
        A folder whose name is the commit.
    """
    shown = nullcontext(Activity(repository)) if local_files_only else doing(f"Downloading {repository} from the Hub")
    with shown as download:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignore),
                local_files_only=local_files_only,
                etag_timeout=HUB_TIMEOUT,
                tqdm_class=_bar_of(download),
            )
        )


def cached_snapshot(repository: str, revision: str | None, patterns: Sequence[str], *, ignore: Sequence[str] = ()) -> Path | None:
    """The folder of a model repository in the local Hub cache, without a question to the Hub; None if it is not there.

    It may lack files of the repository: look whether those that are needed are in it.
    """
    try:
        return download_snapshot(repository, revision, patterns, ignore=ignore, local_files_only=True)
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None


def cached_file(repository: str, filename: str, revision: str) -> Path | None:
    """A file in the local Hub cache, without a question to the Hub; None if it is not there."""
    cached = try_to_load_from_cache(repository, filename, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def download_file(repository: str, filename: str, revision: str, folder: Path) -> Path:
    """Download one file into `folder`, past the Hub cache."""
    with doing(f"Downloading {filename} from the Hub") as download:
        how = {"etag_timeout": HUB_TIMEOUT, "tqdm_class": _bar_of(download)}
        return Path(hf_hub_download(repository, filename, revision=revision, local_dir=folder, **how))


def sizes_on_hub(repository: str, filename: str, revision: str) -> tuple[int, int]:
    """How many tensors and numbers a safetensors file of a model repository holds, by its header, the only part of it that is fetched."""
    with doing(f"Asking the Hub how large {filename} of {repository} is"):
        header = HfApi().parse_safetensors_file_metadata(repository, filename, revision=revision)
    return len(header.tensors), sum(header.parameter_count.values())


def is_on_hub(repository: str, filename: str, revision: str) -> bool:
    """Whether a model repository has this file."""
    return HfApi().file_exists(repository, filename, revision=revision)


def _bar_of(download: Activity) -> type[tqdm]:
    """A bar that draws nothing: the bytes that huggingface_hub counts on it are those of `download`.

    Where the download is part of a request that is cancelled, it ends with the next bytes: huggingface_hub itself knows no way to end one.
    """
    cancelled = cancellation.current()  # huggingface_hub counts in threads of its own, which are in no block

    class Bar(tqdm):
        def __init__(self, *arguments: object, **options: object):
            self.counts_bytes = options.get("unit") == "B"
            options.pop("name", None)  # huggingface_hub's own bars have one
            super().__init__(*arguments, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            cancellation.check(cancelled)
            self.n += n or 0
            if self.counts_bytes:
                download.reached(self.n, self.total)

    return Bar


def upload_folder(repository: str, folder: Path, *, message: str, private: bool | None = None, token: str | None = None) -> str:
    """Upload a folder as one commit to a model repository, which is made if it is not there.

    Args:
        repository: `user/name`; `name` alone is taken as the repository of the user who is logged in.
        folder: its files are added or replaced; others in the repository stay.
        message: of the commit.
        private: for a repository that is made: whether others may see it; None for the account's own setting.
        token: of the account; None for the one that `hf auth login` stored.

    Returns:
        The address of the commit.
    """
    api = HfApi(token=token)
    repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
    return str(api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=message).commit_url)


# --- what is known to go wrong ----------------------------------------------------------------------------------------

_LOG_IN = "log in with `hf auth login`"

# Subclasses stand above their parents. {noun}, {revision}, {hub} and {reason} are filled in by hub_failure.
_KNOWN: list[tuple[type[BaseException], Failure]] = [
    (
        errors.GatedRepoError,
        Failure("its owner lets in only people who asked", f"accept its terms on the Hub and {_LOG_IN}"),
    ),
    (errors.DisabledRepoError, Failure("the Hub has disabled this repository", "choose another")),
    (
        errors.RepositoryNotFoundError,
        Failure("there is no such public {noun} on the Hub", f"check the spelling, or {_LOG_IN} if it is private"),
    ),
    (
        errors.RevisionNotFoundError,
        Failure("it has no revision {revision!r}", "look it up under 'Files and versions' on the Hub"),
    ),
    (errors.EntryNotFoundError, Failure("a file is not there ({reason})", "look it up under 'Files and versions' on the Hub")),
    (errors.HFValidationError, Failure("the Hub has no such names ({reason})", "check the spelling of user/name")),
    (errors.LocalTokenNotFoundError, Failure("nobody is logged in", _LOG_IN)),
    (errors.OfflineModeIsEnabled, Failure("HF_HUB_OFFLINE is set, so the Hub was not asked", "unset it")),
    (
        errors.SafetensorsParsingError,
        Failure("one of its files is damaged ({reason})", "choose another repository, or tell its owner"),
    ),
    (errors.FileMetadataError, Failure("what answers at {hub} is no Hub ({reason})", "check HF_ENDPOINT and the proxy")),
]
_KNOWN_STATUS = {
    401: Failure("the Hub does not accept this login", _LOG_IN),
    403: Failure("this login may not do that", f"{_LOG_IN} and a token that may"),
    429: Failure("the Hub had too many requests from here", "try again in some minutes"),
    **dict.fromkeys((500, 502, 503, 504), Failure("the Hub has trouble of its own ({reason})", "try again later")),
}
_OTHER_STATUS = Failure("the Hub refused it ({reason})", "check the name and the login")
_NO_ANSWER = Failure("no answer from {hub}: {reason}", "check the network connection")
_BROKEN_OFF = Failure("the transfer broke off ({reason})", "check the network connection and the disk, and try again")


@contextlib.contextmanager
def hub_errors(error_class: type[BituneError], what: str, *, noun: str = "model", revision: str | None = None) -> Iterator[None]:
    """Raise what the Hub, the network and the disk are known to raise as `error_class`; any other exception passes as it is.

    Args:
        error_class: for example CheckpointError.
        what: the beginning of its sentence: what was to be done with which repository. Cause and remedy follow it.
        noun: what the repository holds, "model" or "data set".
        revision: the one that was asked for.
    """
    try:
        yield
    except Exception as error:
        failure = hub_failure(error, noun=noun, revision=revision)
        if failure is None:
            raise
        raise error_class(f"{what}: {failure.cause}; {failure.remedy}.") from error


def hub_failure(error: BaseException, *, noun: str = "model", revision: str | None = None) -> Failure | None:
    """The known cause of an exception that a call of huggingface_hub raised, and the remedy; None if it is not known.

    `noun` and `revision` as in `hub_errors`.
    """
    wrapper = isinstance(error, errors.LocalEntryNotFoundError) or type(error) is RuntimeError  # RuntimeError: of an upload
    if wrapper and error.__cause__ is not None:
        return hub_failure(error.__cause__, noun=noun, revision=revision)
    failure = _known(error)
    if failure is None:
        return disk_failure(error) if isinstance(error, OSError) else None
    words = {"noun": noun, "revision": revision or "main", "hub": constants.ENDPOINT, "reason": reason(error)}
    return Failure(failure.cause.format(**words), failure.remedy)


def _known(error: BaseException) -> Failure | None:
    for kind, failure in _KNOWN:
        if isinstance(error, kind):
            return failure
    if isinstance(error, errors.HfHubHTTPError):
        return _KNOWN_STATUS.get(error.response.status_code, _OTHER_STATUS)
    # The root of the HTTP library under huggingface_hub, which was changed twice: its errors module holds whichever it is.
    if isinstance(error, errors.HTTPError):
        return _NO_ANSWER
    # hf_xet, which moves large files, raises RuntimeError for a network that fails; huggingface_hub an OSError without a
    # number for a file that came incomplete.
    if isinstance(error, RuntimeError) and "CAS Client Error" in str(error):
        return _BROKEN_OFF
    if isinstance(error, OSError) and error.errno is None:
        return _BROKEN_OFF
    return None
