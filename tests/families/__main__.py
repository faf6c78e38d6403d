"""python -m tests.families [FAMILY ...]: try every family and write docs/families.md, or try the named ones and print their rows."""

import logging
import sys
import warnings

import torch
import transformers

from tests.families.page import PAGE, written
from tests.families.sweep import sweep
from tests.families.tiny_configs import FAMILIES


def main(named: list[str]) -> None:
    """Print a row for each family as it comes."""
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")  # of settings that a family warns about; the tests decide which are harmless
    torch.set_num_threads(1)
    rows = []
    for family in named or FAMILIES:
        rows.append(sweep(family))
        print(rows[-1].line, flush=True)
    if not named:
        PAGE.write_text(written(rows), encoding="utf-8")


main(sys.argv[1:])
