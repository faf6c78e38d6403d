"""BituneModel: a base, its adapters and the mixing as one module that trains, scores and generates."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from bitune.adapters.kinds import new_peft_config
from bitune.adapters.manager import AdapterManager
from bitune.base.loading import Base, load_base
from bitune.checkpoints.folder import Adapter, Checkpoint, read, resolve_checkpoint, write
from bitune.checkpoints.publish import publish
from bitune.checkpoints.reference import read_reference
from bitune.checkpoints.weights import check_coefficients
from bitune.errors import CheckpointError, ConfigError
from bitune.model.decoding import PromptCache, generate, read_prompts, score
from bitune.model.generation_config import resolve_call
from bitune.model.identity import check_base, describe, module_of, source_of
from bitune.model.limits import check_batch
from bitune.model.mixing import MixingCoefficients, check_initial_alpha
from bitune.model.prefill import Row
from bitune.modeling.interface import checkpoints_activations, input_device
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
        self.mixing: MixingCoefficients | None = None
        try:
            for slot in config.method.slots:
                adapter = adapters[slot]
                self.names[slot] = self.manager.add(slot, adapter.config, adapter.weights, trainable=trainable)
            if config.mixing is not None:
                self.mixing = MixingCoefficients(self.manager.layout.layers, **vars(config.mixing))
                self.mixing.requires_grad_(trainable).to(self.device)
            self._method = config.method.renamed(self.names)
        except BaseException:
            self.release()
            raise

    @classmethod
    def create(
        cls,
        base: BaseLike,
        method: str = "bitune",
        peft_config: PeftConfig | None = None,
        mixing: MixingSettings | None = None,
        prompt_template: str | None = None,
        initial_mixing_alpha: float = 0.5,
    ) -> "BituneModel":
        """Make an untrained model. With fresh LoRA adapters every method with causal passes answers like the base.

        Args:
            base: What `load_base` returns or takes, or any causal language model of transformers.
            method: A name of `bitune.METHODS`.
            peft_config: Of each of its adapters; default LoRA of rank 8 on every linear layer, see adapters.kinds.
            mixing: How theta becomes alpha, where the method mixes.
            prompt_template: Kept in the checkpoint; holds `{prompt}` once, or is `chat`.
            initial_mixing_alpha: The ratio of the second pass that every layer begins with, above 0 and below 1; the paper's is 0.5
                (arXiv 2405.14862, section 3.2).

        Raises:
            BituneError: A setting makes no sense, or does not fit this base; nothing is left on the base then.
        """
        check_initial_alpha(initial_mixing_alpha, (mixing or MixingSettings()).theta_init)
        base = _resolve(base)
        row = method_named(method)
        manager = AdapterManager.of(module_of(base))  # kept here, so that all below meets the same one
        with manager.turn():  # while it looks for linear layers, nobody may wrap one
            fresh = peft_config or new_peft_config(manager.model)
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
            model.mixing.start_at(initial_mixing_alpha)
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
        # The authors' folders do not identify the weights. The turn keeps the manager, so that both lines meet the same one.
        with AdapterManager.of(module_of(base)).turn():
            config = replace(checkpoint.config, base=describe(base, name=checkpoint.config.base.id))
            return cls.from_checkpoint(replace(checkpoint, config=config), base, trainable=trainable)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, base: Base | PreTrainedModel, *, trainable: bool = True, allow_other_base: bool = False
    ) -> "BituneModel":
        """Put a checkpoint that was read on a base that was loaded."""
        manager = AdapterManager.of(module_of(base))  # kept here, so that all below meets the same one
        if not allow_other_base:
            check_base(checkpoint.config.base, describe(base))
        check_coefficients(checkpoint.theta, checkpoint.config.mixing, manager.layout.layers)
        model = cls(base, checkpoint.config, dict(checkpoint.adapters), trainable=trainable)
        try:
            model.log, model.card = checkpoint.log, checkpoint.card
            model._set_theta(checkpoint)
            with manager.turn():  # it walks over modules, among which another thread may put some
                if not trainable and not any(parameter.requires_grad for parameter in model.base.parameters()):
                    model.eval()  # as PeftModel.from_pretrained, unless somebody trains on this base
        except BaseException:
            model.release()
            raise
        return model

    def load(self, checkpoint: Checkpoint) -> None:
        """Take over the weights of a checkpoint of this very method and shape; CheckpointError, and nothing changed, if not."""
        if checkpoint.config.method != self.bitune_config.method:
            raise CheckpointError(
                "The checkpoint was made by another method than this model runs; give the settings it was made with."
            )
        check_coefficients(checkpoint.theta, checkpoint.config.mixing, self.manager.layout.layers)
        with self.manager.turn():
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
        if self.names:
            self.manager.remove(*self.names.values())
        self.names = {}

    def train(self, mode: bool = True) -> "BituneModel":
        """Set training mode, base included; in a turn, as another thread may be answering on this base."""
        with self.manager.turn():
            return super().train(mode)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return input_device(self.base)

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

        Args:
            prompt_ids: int64 [batch, P], padded on the left.
            answer_ids: int64 [batch, A], padded on the right.
            prompt_mask, answer_mask: Of the same shapes, 1 on real tokens; default: all are real.

        Returns:
            Logits [batch, A, vocabulary], and the cross-entropy in float32, a mean over all answer tokens of the batch.

        Raises:
            ConfigError, PromptError: As in `limits.check_batch`; or gradient checkpointing is on in training.
        """
        if self.base.training and checkpoints_activations(self.base):
            # It would run a layer again in the backward pass, under another adapter.
            raise ConfigError("Gradient checkpointing is on; Bitune switches adapters between passes, so turn it off to train.")
        prompt_mask, answer_mask = _default_mask(prompt_ids, prompt_mask), _default_mask(answer_ids, answer_mask)
        check_batch(self.base, self.manager.layout, (prompt_ids, prompt_mask), (answer_ids, answer_mask))
        with self.manager.turn():
            rows, read = range(len(prompt_ids)), self._read(prompt_ids, prompt_mask)
            ((_, logits),) = score(read, rows, answer_ids, answer_mask, lambda _, logits: logits)
        labels = answer_ids.masked_fill(answer_mask == 0, IGNORED)
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return BituneOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(self, prompt_ids: Tensor, prompt_mask: Tensor | None = None, **arguments) -> Tensor | ModelOutput:
        """Continue prompts with transformers' own `generate` on the mixed cache.

        Args:
            prompt_ids, prompt_mask: As in `forward`.
            arguments: Those of transformers' `generate`; bitune.model.generation_config says what the base's own settings add.

        Returns:
            int64 [batch (x returned sequences), P + new]; with `return_dict_in_generate` what transformers returns then.

        Raises:
            ConfigError, PromptError: As in `forward`; or an argument would pass by the mixed cache, or makes no sense.
        """
        prompt_mask = _default_mask(prompt_ids, prompt_mask)
        with self.manager.eval_turn():
            call = resolve_call(self.base, prompt_ids, prompt_mask, arguments)
            check_batch(self.base, self.manager.layout, (prompt_ids, prompt_mask), most_tokens=call.most_tokens)
            read = self._read(prompt_ids, prompt_mask)
            return generate(read, defaults=call.defaults, copies=call.copies, **arguments)[0][1]

    def _read(self, prompt_ids: Tensor, prompt_mask: Tensor) -> PromptCache:
        alphas = self.mixing() if self.mixing is not None else (None, None)
        rows = [Row(prompt, self._method.passes, *alphas, self._method.answer_adapter) for prompt in range(len(prompt_ids))]
        return read_prompts(self.manager, prompt_ids, prompt_mask, rows)

    def to_checkpoint(self, state: Mapping[str, Tensor] | None = None) -> Checkpoint:
        """Everything that is saved, copied to the CPU. `state`: this model's whole state dict where it lies in shards elsewhere."""
        base_keys = [key for key in state or () if key.startswith("base.")]
        inner = None if state is None else {key.removeprefix("base."): state[key] for key in base_keys}
        adapters = {
            slot: Adapter(self.manager.config(name), self.manager.weights(name, inner)) for slot, name in self.names.items()
        }
        theta = None
        if self.mixing is not None:
            # Not self.state_dict(): it walks over the base, which another thread may be wrapping.
            whole = state or {f"mixing.{key}": value for key, value in self.mixing.state_dict().items()}
            theta = tuple(whole[f"mixing.theta_{kind}"].detach().float().cpu().clone() for kind in "kv")
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


def _resolve(base: BaseLike) -> Base | PreTrainedModel:
    return load_base(base) if isinstance(base, str | os.PathLike) else base


def _default_mask(ids: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(ids) if mask is None else mask.to(ids.device, torch.long)
