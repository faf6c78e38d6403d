"""What a person may choose when starting the app: flags, and the environment where a Space has no command line."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.guard.address import is_loopback, networks
from app.limits import Limits, add_flags
from app.ui.paths import ASSETS
from bitune.errors import ConfigError
from bitune.flags import Flags, one_of
from bitune.schema.names import DTYPE_NAMES

DEFAULT_BASE = "smollm2-135m-instruct"

TRUE = ("1", "true", "yes", "on")
AUTO, ON, OFF = LOADING = ("auto", "on", "off")


@dataclass(frozen=True)
class Settings:
    """One start of the app.

    `checkpoints`: folders or Hub ids. `chosen`: a person named them; otherwise they are what lies in assets/checkpoints, and
    those that belong to another base are left out instead of ending the start. `data`: where the study's questions are read from.
    `proxies`: whose X-Forwarded-For is believed, see app/guard/address.py. `votes`: the file of votes, "" for the default one or `off`.
    `votes_dataset`: Hub data set that gets them too, or "". `loading`: whether something can be loaded from the page, one of LOADING;
    `hosted`: whether the environment says that strangers open it.
    """

    base: str = DEFAULT_BASE
    checkpoints: tuple[str, ...] = ()
    chosen: bool = False
    host: str = "127.0.0.1"
    port: int = 7860
    mcp: bool = False
    data: tuple[str, ...] = ()
    dtype: str = "auto"
    proxies: tuple[str, ...] = ()
    limits: Limits = Limits()
    votes: str = ""
    votes_dataset: str = ""
    loading: str = AUTO
    hosted: bool = False

    def __post_init__(self):
        networks(self.proxies)
        if self.loading not in LOADING:
            raise ConfigError(f"--loading is {self.loading!r}; it is one of {', '.join(LOADING)}.")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port is {self.port}; a port lies between 1 and 65535, or 0 for any free one.")

    @property
    def public(self) -> bool:
        """Whether others than the person at this computer may open the page: it is hosted, listens to a network, or to a proxy."""
        return self.hosted or bool(self.proxies) or not is_loopback(self.host)

    @property
    def loads(self) -> bool:
        """Whether checkpoints can be loaded from the page."""
        return self.loading == ON or (self.loading == AUTO and not self.public)

    @property
    def exchanges(self) -> bool:
        """Whether another base can be loaded from the page: that restarts it for everybody, so never where strangers open it."""
        return self.loads and not self.public

    def with_base(self, base: str) -> "Settings":
        """The same with another base; of the checkpoints, those that belong to it."""
        return self if base == self.base else replace(self, base=base, chosen=False)

    @classmethod
    def from_command_line(cls, arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Flags first, then the environment, then the defaults."""
        flags = parser(environment).parse_args(arguments)
        checkpoints = flags.checkpoint or parts(environment.get("BITUNE_CHECKPOINTS", ""))
        return cls(
            base=flags.base,
            checkpoints=tuple(checkpoints) or shipped_checkpoints(),
            chosen=bool(checkpoints),
            host=f"[{flags.host}]" if ":" in flags.host and "[" not in flags.host else flags.host,  # IPv6, as in an address
            port=flags.port,
            mcp=flags.mcp,
            data=tuple(flags.data or parts(environment.get("BITUNE_DATA", ""))),
            dtype=flags.dtype,
            proxies=tuple(parts(flags.proxies)),
            limits=Limits.from_flags(flags),
            votes=flags.votes,
            votes_dataset=flags.votes_dataset,
            loading=flags.loading,
            hosted="SPACE_ID" in environment or environment.get("GRADIO_SHARE", "").lower() in TRUE,
        )


def parts(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line of app.py. Host, port and MCP listen to the names Spaces and Gradio already use."""
    flags = Flags(description="Bitune: one prompt, read once or twice, answers side by side.")
    flags.add_argument(
        "--base",
        default=environment.get("BITUNE_BASE", DEFAULT_BASE),
        help="base model: folder, Hub id, GGUF file or the embedded default (environment: BITUNE_BASE)",
    )
    flags.add_argument(
        "--dtype",
        default=environment.get("BITUNE_DTYPE", "auto"),
        type=one_of(DTYPE_NAMES),
        help="auto, float32, bfloat16, float16; int8 on a CPU (environment: BITUNE_DTYPE)",
    )
    flags.add_argument(
        "--checkpoint",
        action="append",
        metavar="DIR_OR_ID",
        help="a Bitune or LoRA checkpoint, may be repeated; left out: every folder in assets/checkpoints "
        "(environment: BITUNE_CHECKPOINTS, separated by commas)",
    )
    flags.add_argument(
        "--loading",
        default=environment.get("BITUNE_LOADING", AUTO),
        metavar="|".join(LOADING),
        help="whether checkpoints and another base can be loaded from the page; auto: where it is open to this computer alone. A public page "
        "takes checkpoints from the Hub only, and no base (environment: BITUNE_LOADING)",
    )
    flags.add_argument(
        "--host",
        default=environment.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on (environment: GRADIO_SERVER_NAME)",
    )
    flags.add_argument(
        "--port",
        type=int,
        default=environment.get("GRADIO_SERVER_PORT", 7860),
        help="port; 0 takes any free one (environment: GRADIO_SERVER_PORT)",
    )
    flags.add_argument(
        "--mcp",
        action="store_true",
        default=environment.get("GRADIO_MCP_SERVER", "").lower() in TRUE,
        help="also serve the API as tools for the Model Context Protocol (needs the package gradio[mcp]; environment: GRADIO_MCP_SERVER)",
    )
    flags.add_argument(
        "--votes",
        default=environment.get("BITUNE_VOTES", ""),
        metavar="FILE",
        help="where visitors' votes are kept, or `off` (default: bitune/votes.sqlite3 in $XDG_DATA_HOME or ~/.local/share; environment: "
        "BITUNE_VOTES)",
    )
    flags.add_argument(
        "--votes-dataset",
        default=environment.get("BITUNE_VOTES_DATASET", ""),
        metavar="ID",
        help="data set on the Hugging Face Hub that gets the votes too, every few minutes; made private where it is not there yet "
        "(environment: BITUNE_VOTES_DATASET)",
    )
    flags.add_argument(
        "--data",
        action="append",
        metavar="DIR_FILE_OR_ID",
        help="questions of the study, to read their texts in the tab Evidence: a folder of *.test.jsonl, a JSON Lines file or a Hub "
        "data set id[:config], may be repeated (environment: BITUNE_DATA, separated by commas)",
    )
    flags.add_argument(
        "--proxies",
        default=environment.get("BITUNE_PROXIES", "private" if "SPACE_ID" in environment else ""),
        metavar="ADDRESSES",
        help="reverse proxies in front of the app, whose X-Forwarded-For says who a visitor is: addresses or networks, separated by "
        "commas, or the word private (default: none, on a Space private; environment: BITUNE_PROXIES)",
    )
    add_flags(flags, environment)
    return flags


def shipped_checkpoints() -> tuple[str, ...]:
    """The checkpoint folders that come with the project, by name."""
    return tuple(str(folder) for folder in sorted((ASSETS / "checkpoints").glob("*/")))
