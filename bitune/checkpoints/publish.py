"""Publish a checkpoint on the Hugging Face Hub.

Not by `huggingface_hub.ModelHubMixin`: it writes a config.json and a card of its own past our files, asks the Hub for a config.json that
a checkpoint does not have, and knows neither `base=` nor `user/name@revision`; what would be left of it is `upload_folder`.
"""

import tempfile
from pathlib import Path

from bitune.checkpoints.folder import Checkpoint, write
from bitune.errors import CheckpointError
from bitune.hub import hub_errors, upload_folder


def publish(checkpoint: Checkpoint, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload a checkpoint to a model repository, which is made if it is not there.

    Args:
        checkpoint: what is uploaded.
        repository: `user/name`.
        private: for a repository that is made: whether others may see it; None for the account's own setting.
        token: of the account; None for the one that `hf auth login` stored.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: the Hub did not take it, with the Hub's reason.
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = write(checkpoint, Path(parent) / "checkpoint")
        with hub_errors(CheckpointError, f"The Hub did not take {repository!r}"):
            return upload_folder(repository, folder, message="Upload Bitune checkpoint", private=private, token=token)
