"""The votes as a data set on the Hugging Face Hub, beside the file: huggingface_hub's CommitScheduler sends them every few minutes.

The file of votes stays the only record. What is sent is made from it anew each time, as one file of JSON Lines whose name is that of the
file of votes, so nothing is lost where the Hub cannot be reached, or where the app is killed between a vote and the next commit: the next
commit has it all. Several processes with one file of votes send the same; with a file each, each sends its own.
"""

import logging
import threading
import time
from tempfile import TemporaryDirectory

from huggingface_hub import CommitScheduler
from huggingface_hub.hf_api import CommitInfo

from app.votes.export import json_lines
from app.votes.store import VoteStore
from bitune.hub import hub_failure
from bitune.outputs import write_whole

MINUTES = 5.0  # between two commits: the Hub allows about a hundred in an hour
log = logging.getLogger(__name__)


class VotesScheduler(CommitScheduler):
    """Sends the votes of a store where there are new ones.

    The scheduler looks at its folder under its lock and sends what is new in it, later and without the lock. So a file in it is
    replaced whole, before that.
    """

    def __init__(self, store: VoteStore, dataset: str, folder: TemporaryDirectory, every: float):
        """Makes the data set, private, where it is not there; raises what huggingface_hub raises.

        Args:
            store: Where the votes are.
            dataset: `user/name`.
            folder: An empty one, of this scheduler alone, kept as long as it.
            every: Minutes between two commits.
        """
        self.store, self.sent, self.temporary = store, 0, folder
        super().__init__(repo_id=dataset, repo_type="dataset", folder_path=folder.name, every=every, private=True)

    def push_to_hub(self) -> CommitInfo | None:
        """Bring the folder up to date, and send it."""
        if (last := self.store.last_id()) != self.sent:
            with self.lock:
                write_whole(self.folder_path / f"votes-{self.store.id()}.jsonl", "".join(json_lines(self.store.votes())))
            self.sent = last
        return super().push_to_hub()


def send(store: VoteStore, dataset: str, every: float = MINUTES) -> threading.Thread:
    """Send the votes of a store for as long as the app runs, and begin again as often as the Hub is not there at the beginning.

    A commit that fails is logged by the scheduler, and the next one has what it had.
    """

    def work() -> None:
        folder = TemporaryDirectory(prefix="bitune-votes-", ignore_cleanup_errors=True)
        while True:
            try:
                VotesScheduler(store, dataset, folder, every)  # has a thread of its own, and lives as long as the app
                return
            except Exception as error:
                failure = hub_failure(error, noun="data set")
                if failure is None:
                    raise
                log.warning(
                    "Votes are kept, but not sent to the data set %s: %s; %s. Next try in %g min.",
                    dataset,
                    *vars(failure).values(),
                    every,
                )
            time.sleep(60 * every)

    thread = threading.Thread(target=work, daemon=True, name="votes to the Hub")
    thread.start()
    return thread
