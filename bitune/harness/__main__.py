"""lm-eval's command line, with `bitune` among its models."""

import sys

from lm_eval.__main__ import cli_evaluate

import bitune.harness  # noqa: F401
from bitune import distributed
from bitune.errors import BituneError


def main() -> None:
    """Run it; an error of ours is one sentence on stderr and status 1."""
    try:
        cli_evaluate()
        distributed.leave()
    except BituneError as error:
        sys.exit(f"bitune: {error}")


if __name__ == "__main__":
    main()
