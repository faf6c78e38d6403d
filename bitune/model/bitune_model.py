"""BituneModel: a base, its adapters and the mixing as one module that trains, scores and generates."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import ModelOutput

from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager, require_no_checkpointing
from bitune.base.loading import Base, load_base
from bitune.checkpoints.folder import Adapter, Checkpoint, read, resolve_checkpoint, write
from bitune.checkpoints.publish import publish
from bitune.checkpoints.reference import read_reference
from bitune.errors import CheckpointError, ConfigError
from bitune.model.identity import check_base, describe, module_of, source_of
from bitune.model.mixing import MixingCoefficients
from bitune.model.prefill import Row, prefill
from bitune.modeling.support import cache_input, position_input
from bitune.schema.config import BituneConfig, MixingSettings
from bitune.schema.variants import Variant, method_named

IGNORED = -100
BaseLike = Base | PreTrainedModel | str | os.PathLike


@dataclass
class BituneOutput(ModelOutput):
    """`loss` scalar, mean over the answer tokens of the batch; `logits` [batch, answer, vocabulary], row i predicts answer token i."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class BituneModel(nn.Module):
    """One method of the variant table on one base.

    Make one with `create` (untrained), `from_pretrained` or `from_reference`. `names[slot]` is the adapter's name on the base,
    `mixing` the learned coefficients or None. Several models may share a base; outside their calls the base is the bare base.
    """

    def __init__(
        self, base: Base | PreTrainedModel, config: BituneConfig, adapters: dict[str, Adapter], *, trainable: bool = True
    ):
        super().__init__()
        self.tokenizer = base.tokenizer if isinstance(base, Base) else None
        self.base = base.model if isinstance(base, Base) else base
        self.manager = AdapterManager.of(self.base)
        self.bitune_config = config
        self.log: str | None = None
        self.card: str | None = None
        self.names: dict[str, str] = {}
        try:
            for slot in config.method.slots:
                adapter = adapters[slot]
                self.names[slot] = self.manager.add(slot, adapter.config, adapter.weights, trainable=trainable)
        except CheckpointError:
            self.release()
            raise
        self.mixing = None
        if config.mixing is not None:
            self.mixing = MixingCoefficients(self.manager.layout.layers, **vars(config.mixing))
            self.mixing.requires_grad_(trainable).to(self.device)
        self._method = config.method.renamed(self.names)

    @classmethod
    def create(
        cls,
        base: BaseLike,
        method: str = "bitune",
        peft_config: PeftConfig | None = None,
        mixing: MixingSettings | None = None,
        prompt_template: str | None = None,
        alpha_start: float = 0.5,
    ) -> "BituneModel":
        """An untrained model: fresh adapters of `peft_config` (default: LoRA of rank 8, see peft_kinds).

        `method` is a name of variants.METHODS. `alpha_start`: the ratio that every layer begins with, above 0 and below 1; the
        paper's is 0.5. With fresh LoRA adapters every method with causal passes answers like the base.
        """
        base = _resolve(base)
        row = method_named(method)
        fresh = peft_config or new_peft_config(module_of(base))
        config = BituneConfig(
            base=describe(base),
            passes=row.passes,
            answer_adapter=row.answer_adapter,
            mixing=(mixing or MixingSettings()) if row.mixed else None,
            adapters={slot: slot for slot in row.slots},
            prompt_template=prompt_template,
        )
        model = cls(base, config, {slot: Adapter(replace(fresh), None) for slot in row.slots})
        if model.mixing is not None:
            model.mixing.start_at(alpha_start)
        return model

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike, base: BaseLike | None = None, *, trainable: bool = True, allow_other_base: bool = False
    ) -> "BituneModel":
        """Load a checkpoint: a folder or a Hub id. `base` defaults to the one it was trained on.

        Raises CheckpointError for a folder that is incomplete, damaged or does not fit, WrongBaseError if `base` is another
        than it was trained on; `allow_other_base` lets it run on, say, another quantization of the same base.
        """
        checkpoint = read(resolve_checkpoint(source))
        base = _resolve(source_of(checkpoint.config.base) if base is None else base)
        return cls.from_checkpoint(checkpoint, base, trainable=trainable, allow_other_base=allow_other_base)

    @classmethod
    def from_reference(cls, folder: str | os.PathLike, base: BaseLike, *, trainable: bool = True) -> "BituneModel":
        """Load a checkpoint folder of the authors' research code on `base`; see reference.read_reference."""
        base = _resolve(base)
        checkpoint = read_reference(folder)
        # The authors' folders do not identify the weights; from here on this model knows which it runs on.
        config = replace(checkpoint.config, base=describe(base, name=checkpoint.config.base.id))
        return cls.from_checkpoint(replace(checkpoint, config=config), base, trainable=trainable)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, base: Base | PreTrainedModel, *, trainable: bool = True, allow_other_base: bool = False
    ) -> "BituneModel":
        """Put a checkpoint that was read on a base that was loaded."""
        if not allow_other_base:
            check_base(checkpoint.config.base, describe(base))
        layers = AdapterManager.of(module_of(base)).layout.layers
        if checkpoint.theta is not None and len(checkpoint.theta[0]) != layers:
            raise CheckpointError(
                f"The checkpoint has mixing coefficients for {len(checkpoint.theta[0])} layers, the base has {layers}; "
                "load it on the base it was trained on."
            )
        model = cls(base, checkpoint.config, dict(checkpoint.adapters), trainable=trainable)
        model.log, model.card = checkpoint.log, checkpoint.card
        model._set_theta(checkpoint)
        return model

    def load(self, checkpoint: Checkpoint) -> None:
        """Take over the weights of a checkpoint of this very method and shape; CheckpointError, and nothing changed, if not."""
        if checkpoint.config.method != self.bitune_config.method:
            raise CheckpointError(
                "The checkpoint was made by another method than this model runs; give the settings it was made with."
            )
        for slot, name in self.names.items():
            self.manager.check_fit(name, checkpoint.adapters[slot].weights)
        for slot, name in self.names.items():
            self.manager.fill(name, checkpoint.adapters[slot].weights)
        self._set_theta(checkpoint)

    @torch.no_grad()
    def _set_theta(self, checkpoint: Checkpoint) -> None:
        if checkpoint.theta is not None:
            self.mixing.theta_k.copy_(checkpoint.theta[0])
            self.mixing.theta_v.copy_(checkpoint.theta[1])

    def release(self) -> None:
        """Take this model's adapters off the base; the model is of no use afterwards."""
        for name in self.names.values():
            self.manager.remove(name)
        self.names = {}

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.base.get_input_embeddings().weight.device

    @property
    def variant(self) -> Variant:
        """This model as data, its ratios as they are now."""
        return self._method.with_mixing(self.mixing.ratios() if self.mixing is not None else None)

    def mixing_ratios(self) -> tuple[Tensor, Tensor]:
        """alpha for keys and for values, two float32 tensors [layers]; ConfigError for a method that mixes nothing."""
        if self.mixing is None:
            raise ConfigError("This checkpoint reads the prompt once and mixes nothing, so it has no mixing ratios.")
        with torch.no_grad():
            return self.mixing()

    def forward(
        self, prompt_ids: Tensor, answer_ids: Tensor, prompt_mask: Tensor | None = None, answer_mask: Tensor | None = None
    ) -> BituneOutput:
        """Score answers after their prompts.

        `prompt_ids` [batch, P] left-padded, `answer_ids` [batch, A] right-padded, masks of the same shapes (1 on real tokens,
        default: all). ConfigError for padding on the other side. The loss is the cross-entropy in float32, mean over all answer tokens of the batch.
        """
        require_no_checkpointing(self.base)
        prompt_mask = _prompt_mask(prompt_ids, prompt_mask)
        answer_mask = _default_mask(answer_ids, answer_mask)
        if not answer_mask[:, 0].all():
            raise ConfigError("A row of answer_mask begins with 0; answers are padded on the right and have at least one token.")
        cache = self._prefill(prompt_ids, prompt_mask)
        ids = torch.cat([prompt_ids[:, -1:], answer_ids[:, :-1]], dim=1)
        mask = torch.cat([prompt_mask, answer_mask[:, :-1]], dim=1)
        placed = position_input(self.base, mask, ids.shape[1])
        with self.manager.active_adapter(self._method.answer_adapter):
            output = self.base(input_ids=ids, attention_mask=mask, use_cache=True, **cache_input(cache), **placed)
        labels = answer_ids.masked_fill(answer_mask == 0, IGNORED)
        loss = nn.functional.cross_entropy(output.logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return BituneOutput(loss=loss, logits=output.logits)

    @torch.no_grad()
    def generate(self, prompt_ids: Tensor, prompt_mask: Tensor | None = None, **arguments) -> Tensor:
        """Continue prompts with transformers' own `generate` on the mixed cache; `arguments` are its arguments.

        `prompt_ids` [batch, P] left-padded; returns [batch (x returned sequences), P + new], as transformers does. ConfigError for
        an argument that would read the prompt anew, past the mixed cache, and for padding on the right.
        """
        prompt_mask = _prompt_mask(prompt_ids, prompt_mask)
        copies = copies_per_row(self.base.generation_config, arguments)
        cache = self._prefill(prompt_ids, prompt_mask)
        arguments = {**arguments, "use_cache": True, **cache_input(cache)}
        if copies > 1:  # generate() repeats ids and mask for beams, but not a cache that it is given
            cache.batch_repeat_interleave(copies)
        with self.manager.active_adapter(self._method.answer_adapter):
            return self.base.generate(prompt_ids, attention_mask=prompt_mask, **arguments)

    def _prefill(self, prompt_ids: Tensor, prompt_mask: Tensor):
        alphas = self.mixing() if self.mixing is not None else (None, None)
        rows = [Row(prompt, self._method.passes, *alphas) for prompt in range(len(prompt_ids))]
        return prefill(self.manager, prompt_ids, prompt_mask, rows)

    def to_checkpoint(self, state: Mapping[str, Tensor] | None = None) -> Checkpoint:
        """Everything that is saved, copied to the CPU. `state`: this model's whole state dict where it lies in shards elsewhere."""
        inner = None
        if state is not None:
            inner = {key.removeprefix("base."): value for key, value in state.items() if key.startswith("base.")}
        adapters = {
            slot: Adapter(self.manager.config(name), self.manager.weights(name, inner)) for slot, name in self.names.items()
        }
        theta = None
        if self.mixing is not None:
            own = state or self.state_dict()
            theta = tuple(own[f"mixing.theta_{kind}"].detach().float().cpu().clone() for kind in "kv")
        return Checkpoint(self.bitune_config, adapters, theta, self.log, self.card)

    def record_training(self, facts: Mapping[str, object]) -> None:
        """Keep facts about the training in the config that is saved."""
        self.bitune_config = replace(self.bitune_config, training=dict(facts))

    def save_pretrained(self, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Write a checkpoint folder, whole or not at all; `dtype` stores the adapters in another precision."""
        write(self.to_checkpoint(), folder, dtype)

    def push_to_hub(self, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Publish the checkpoint as a Hub model repository `user/name`; returns its address."""
        return publish(self.to_checkpoint(), repository, private=private, token=token)

    def trainable_parameters(self) -> int:
        """How many numbers training moves: adapters in use and mixing coefficients."""
        mixing = sum(p.numel() for p in self.mixing.parameters()) if self.mixing is not None else 0
        return self.manager.trainable_parameters(list(self.names.values())) + mixing


# Ways of generating that read the prompt themselves, or bring a cache of their own.
_PAST_THE_CACHE = (
    "assistant_model",
    "cache",
    "cache_implementation",
    "custom_generate",
    "past_key_values",
    "prompt_lookup_num_tokens",
)


def copies_per_row(default: GenerationConfig, arguments: Mapping[str, object]) -> int:
    """How many rows transformers' generate makes of each prompt: beams, or returned sequences.

    ConfigError for arguments that would pass by the mixed cache and so answer as if it had not been mixed.
    """
    config = arguments.get("generation_config") or default
    settings = config.to_dict() | dict(arguments)
    for name in _PAST_THE_CACHE:
        if settings.get(name) is not None:
            raise ConfigError(f"{name} is {settings[name]!r}; Bitune answers from its own mixed cache, so leave it out.")
    if arguments.get("use_cache") is False:
        raise ConfigError("use_cache is False; Bitune answers from its mixed cache, so leave it out.")
    return max(settings.get("num_beams") or 1, settings.get("num_return_sequences") or 1)


def _resolve(base: BaseLike) -> Base | PreTrainedModel:
    return load_base(base) if isinstance(base, str | os.PathLike) else base


def _prompt_mask(prompt_ids: Tensor, mask: Tensor | None) -> Tensor:
    mask = _default_mask(prompt_ids, mask)
    if not mask[:, -1].all():
        raise ConfigError("A row of prompt_mask ends with 0; prompts are padded on the left and have at least one token.")
    return mask


def _default_mask(ids: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(ids) if mask is None else mask.to(ids.device, torch.long)
