"""Publish a checkpoint on the Hugging Face Hub."""

import tempfile
from pathlib import Path

from huggingface_hub import HfApi

from bitune.checkpoints.folder import Checkpoint, write
from bitune.errors import CheckpointError


def publish(checkpoint: Checkpoint, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload `checkpoint` as the model repository `user/name`, made if it is not there; returns the address of the commit.

    CheckpointError with the Hub's own reason if it does not take it.
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = write(checkpoint, Path(parent) / "checkpoint")
        try:
            api = HfApi(token=token)
            repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
            done = api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload Bitune checkpoint")
        except Exception as error:  # the Hub client raises its own, its transport's and the system's errors
            reason = str(error).strip().split("\n")[0]
            raise CheckpointError(
                f"The Hub did not take {repository!r} ({type(error).__name__}: {reason}); log in with `hf auth login` and check the name."
            ) from error
    return str(done.commit_url)
