"""The model card of a checkpoint that was trained: what it is, on what and how it was trained, its figures, how to load it.

Everything in it stands in the checkpoint's config too. Knows no file.
"""

import json

from huggingface_hub import ModelCardData

from bitune.model.identity import is_local, source_of
from bitune.schema.config import BituneConfig
from bitune.schema.variants import name_of

_CARD = """---
{front}
---

# {title}

{kind} for `{name}`, made with `python -m bitune train`.

## Data

{examples:,} examples of {sources} to train on, {validation:,} held out for validation.

## Training

{settings}

## Figures

| | |
|---|---|
{figures}

`training_log.jsonl` has the course of the loss.

## Use

```python
import bitune

base = bitune.load_base("{source}")
model = bitune.BituneModel.from_pretrained("THIS FOLDER OR ITS HUB ID", base=base)
```

or `python app.py --base {source} --checkpoint THIS`. {where}Its adapters are ordinary PEFT folders.
"""
_PLACE = "PATH_OF_THE_BASE"  # of a base that was read from this disk: its bare name is nothing that load_base finds
_FIGURES = {
    "train_loss": "mean loss over the training",
    "eval_loss": "loss on the held-out examples at the end",
    "trainable_parameters": "trained numbers",
    "initial_mixing_alpha": "share of the second reading before the first update",
}


def card(config: BituneConfig) -> str:
    """README.md of a checkpoint whose config holds `trainer.training_facts`."""
    base, facts = config.base, config.training
    data, method = facts["data"], name_of(config.method) or "custom"
    name = source_of(base)
    source, where = (_PLACE, f"`{_PLACE}` is where the base `{name}` lies. ") if is_local(base) else (name, "")
    known = ModelCardData(base_model=base.id if "/" in base.id else None, library_name="bitune", tags=["bitune", "peft"])
    return _CARD.format(
        front=known.to_yaml(),
        title=f"{method} on {base.id}",
        kind=f"{len(config.adapters)} adapter{'s' if len(config.adapters) > 1 else ''} of the method `{method}`",
        name=name,
        source=source,
        where=where,
        examples=data["examples"],
        validation=data["validation"],
        sources=", ".join(f"`{name}`" for name in data["sources"]),
        settings=", ".join(f"`{name}` {json.dumps(value)}" for name, value in facts["settings"].items()),
        figures="\n".join(f"| {text} | {facts[name]:,} |" for name, text in _FIGURES.items() if name in facts),
    )
