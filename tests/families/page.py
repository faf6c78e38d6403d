"""docs/families.md: the table of the sweep, and what it was made with."""

from collections.abc import Sequence
from pathlib import Path

import peft
import torch
import transformers

from tests.families.comparisons import COMPARISONS
from tests.families.sweep import Row

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
MADE_WITH = f"transformers {transformers.__version__}"

_WORDS = """# Families

Which of the families that transformers lists as causal language models run here, and whether they give what the libraries give. Of each
family a tiny random model is built from its config, float32 on a CPU, with LoRA adapters on its linear layers; {made_with}, PEFT {peft} and
PyTorch {torch}. `python -m tests.families` writes this page, and `make test-long` holds every row of it.

- **generation:** greedy answers of the base and of a LoRA adapter are those of `generate` of transformers and of `PeftModel`, token by token,
  both through `generate` and step by step as the page streams them.
- **scores:** logits and log-likelihoods of given answers are those of one forward over prompt and answer.
- **padding:** a batch of prompts of 1, 5 and 14 tokens gives what each gives alone: the base, LoRA and Bitune.
- **Bitune:** its logits are those of two passes of `PeftModel` under masks made by the test, mixed by the test, and an answer pass.
- **maps:** attention maps of the causal pass and of the answer are the `output_attentions` of eager attention, and every head of the bidirectional
  pass looks ahead. *refused* where a family's attention cannot be recorded; the page says so, and all else works.

"Equal" means: to the rounding of float32 (3e-5 of the largest number), maps to that of float16. {counts}

"""


def written(rows: Sequence[Row]) -> str:
    """The page."""
    columns = ["family", "", *COMPARISONS]
    table = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|", *(row.line for row in rows)]
    words = _WORDS.format(made_with=MADE_WITH, peft=peft.__version__, torch=torch.__version__.split("+")[0], counts=_counts(rows))
    return words + "\n".join(table) + "\n"


def _counts(rows: Sequence[Row]) -> str:
    verdicts = [row.verdict for row in rows]
    whole = sum(row.verdict == "accepted" and set(row.equal.values()) == {"equal"} for row in rows)
    return (
        f"Of {len(rows)} families {verdicts.count('accepted')} are accepted, {whole} of them with maps; "
        f"{verdicts.count('refused')} are refused with the reason, and {verdicts.count('not tried')} were not tried."
    )
