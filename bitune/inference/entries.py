"""A variant as an engine holds it, and what a checkpoint says of itself."""

import os
from dataclasses import dataclass

from bitune.adapters.kinds import kind_of
from bitune.data.prompts import PromptTemplate
from bitune.model.bitune_model import BituneModel
from bitune.schema.results import CheckpointFacts
from bitune.schema.variants import CAUSAL, Variant, name_of


@dataclass(frozen=True)
class Entry:
    """A variant of an engine; `template`, `model` and `facts` where it is a checkpoint's; `place`: see `Engine.places`."""

    variant: Variant
    template: PromptTemplate | None = None
    model: BituneModel | None = None
    facts: CheckpointFacts | None = None
    place: int = 0


def facts_of(name: str, source: str | os.PathLike, model: BituneModel) -> CheckpointFacts:
    """What the checkpoint `model`, loaded from `source` under this name, says of itself."""
    config = model.bitune_config
    adapter = model.names.get(CAUSAL) or next(iter(model.names.values()))
    return CheckpointFacts(
        name=name,
        source=str(source),
        method=name_of(config.method) or "custom",
        peft_kind=kind_of(model.manager.config(adapter)),
        trainable_parameters=model.trainable_parameters(),
        template=config.prompt_template,
        training=config.training,
        fingerprint=model.to_checkpoint().fingerprint(),
        card=model.card,
    )
