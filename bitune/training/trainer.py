"""Train a BituneModel with transformers' Trainer on accelerate. Knows models and token pairs; knows no file of data and no page."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Trainer, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bitune import distributed
from bitune.checkpoints.folder import read, write
from bitune.data.batches import Collator, TokenPair
from bitune.errors import ConfigError
from bitune.model.bitune_model import BituneModel
from bitune.outputs import check_folder, full_path
from bitune.training import sharded
from bitune.training.progress import LogLastUpdate, Progress
from bitune.training.sampler import EpochSampler
from bitune.training.settings import TrainingSettings
from bitune.training.state import begin, identity, seal

MODEL_FOLDER = "model"  # of our kind, inside each of the Trainer's checkpoint-N folders


def train(
    model: BituneModel,
    pairs: Sequence[TokenPair],
    settings: TrainingSettings,
    output: str | Path,
    validation: Sequence[TokenPair] = (),
    *,
    resume: bool = False,
    about: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, float]:
    """Train `model` in place. Under `accelerate launch` every process calls this alike.

    Args:
        model: its adapters and mixing coefficients are trained, and it keeps the log.
        pairs: token ids to train on.
        settings: how.
        output: folder for states of the training, checkpoint-N every `settings.save_steps` updates. Those of an earlier run that ended
            are removed.
        validation: token ids whose mean loss is the figure `eval_loss`.
        resume: go on from the last complete state of this very run (from the start where there is none); the weights end the same as
            without a break. Base, data, method, adapters, settings and the number of processes must be what they were. Of the settings
            the steps between saves, logs and losses may change, with a constant rate also the length.
        about: JSON values that identify the run too.

    Returns:
        The Trainer's closing figures: `train_loss`, the mean over all updates, `train_runtime` in seconds, and others; no
            `train_runtime` where the state to go on from was already the last.

    Raises:
        ConfigError: no pairs; `eval_steps` without validation pairs; a base with offloaded weights; `output` cannot be written, holds the
            state of another run, or that of one that did not end and is not to be resumed.
        CheckpointError: the state to resume from is damaged.
    """
    output = full_path(output)
    _check_trainable(model, pairs, settings, validation)
    # What is to be put into shards waits on the CPU: it is too large for one device.
    stays = not (distributed.is_sharded() and torch.accelerator.is_available())
    arguments = arguments_of(settings, output, on_cpu=stays and model.device.type == "cpu")
    run = identity(model, settings, pairs, validation, arguments.world_size, about)
    if arguments.should_save:
        check_folder(output)
    trainer = BituneTrainer(model, settings, arguments, pairs, validation, run)
    with trainer.accelerator.main_process_first():
        last = begin(output, run, resume=resume)
    model.train()
    try:
        figures = _run(trainer, settings, last)
        figures["train_loss"] = trainer.mean_loss()  # the Trainer's own is of the steps since the last start
        if validation:
            figures |= trainer.last_validation()
        if trainer.is_fsdp_enabled:
            sharded.keep_whole(model)
    finally:
        model.eval()
    model.log = trainer.log_text()
    return figures


def _check_trainable(
    model: BituneModel, pairs: Sequence[TokenPair], settings: TrainingSettings, validation: Sequence[TokenPair]
) -> None:
    """ConfigError where there is nothing to train on or to validate with, or no weights to go back through."""
    if not pairs:
        raise ConfigError("There are no pairs to train on; give one or more.")
    if settings.eval_steps and not validation:
        raise ConfigError("eval_steps is set, but there are no validation pairs; hold some out.")
    if absent := sum(weight.is_meta for weight in model.base.parameters()):
        raise ConfigError(
            f"{absent} weights of the base are offloaded by its device_map, and a backward pass would not find them; load it whole on a "
            "device, or train in shards on several (FSDP)."
        )


def _run(trainer: "BituneTrainer", settings: TrainingSettings, last: Path | None) -> dict[str, float]:
    """Train on from the state `last`; the Trainer's figures."""
    if last is None:
        return trainer.train().metrics
    state = TrainerState.load_from_json(str(last / "trainer_state.json"))
    if _is_done(state, settings):  # the Trainer would take one more step before it looks
        trainer._load_from_checkpoint(str(last))
        trainer.state = state
        return {}
    if trainer.is_fsdp_enabled:
        trainer._load_from_checkpoint(str(last))
    return trainer.train(resume_from_checkpoint=str(last)).metrics


def _is_done(state: TrainerState, settings: TrainingSettings) -> bool:
    """Whether a run in this state has taken the last update of these settings."""
    return state.global_step >= settings.max_steps if settings.max_steps > 0 else state.epoch >= settings.num_train_epochs


def arguments_of(settings: TrainingSettings, output: Path, on_cpu: bool) -> TrainingArguments:
    """The Trainer's arguments for these settings."""
    named = asdict(settings)
    del named["mixing_learning_rate"]  # of an optimizer group that we make
    share = named.pop("warmup_ratio")
    return TrainingArguments(
        **named,
        warmup_steps=share,  # below 1 it is a share, as warmup_ratio was before transformers 5
        output_dir=str(output),
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        use_cpu=on_cpu,
        logging_first_step=True,
        eval_strategy="steps" if settings.eval_steps else "no",
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,  # the Trainer's own bar: ours, added as a callback, shows the alphas
        remove_unused_columns=False,
        label_names=["answer_ids"],
        prediction_loss_only=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        # In the last layer the second adapter only reaches the cache through k and v: its other weights get no gradient.
        ddp_find_unused_parameters=True,
    )


class BituneTrainer(Trainer):
    """The Trainer, saving our checkpoint folder in place of a state dict with the base in it, and logging alpha."""

    def __init__(
        self, model, settings: TrainingSettings, arguments, pairs, validation, run: Mapping[str, object] = MappingProxyType({})
    ):
        self._settings, self._run = settings, run
        self._lengths = [len(pair.prompt_ids) + len(pair.answer_ids) for pair in pairs]
        self._entries: list[dict] = [json.loads(line) for line in (model.log or "").splitlines()]
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=list(pairs),
            eval_dataset=list(validation) or None,
            data_collator=Collator(pad_id=0),
            callbacks=[LogLastUpdate, Progress],
        )
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled:
            sharded.prepare(model, self.accelerator.state.fsdp_plugin, pairs)

    def compute_loss(self, model, inputs, *arguments, **named):
        """The loss, with the attention kernel that is fastest for this batch."""
        manager = self._bare_model().manager
        casts = manager.under_autocast() if self._settings.bf16 else nullcontext()
        # Around a model in shards accelerate puts none.
        with manager.turn(), casts, self.accelerator.autocast(), _attention_kernels(inputs["prompt_ids"]):
            return super().compute_loss(model, inputs, *arguments, **named)

    def create_optimizer(self, model=None):
        """AdamW with theta in a group of its own learning rate."""
        if self.optimizer is None:
            named = [(name, p) for name, p in (model or self.model).named_parameters() if p.requires_grad]
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model or self.model)
            theta = [p for name, p in named if "mixing.theta" in name]
            rest = [p for name, p in named if "mixing.theta" not in name]
            groups = [{"params": rest, "weight_decay": self.args.weight_decay}]
            if theta:
                rate = self._settings.mixing_learning_rate
                rate = self._settings.learning_rate if rate is None else rate
                groups.append({"params": theta, "weight_decay": 0.0, "lr": rate})
            self.optimizer = kind(groups, **options)
        return self.optimizer

    # The methods below that begin with _ are private to transformers: tests/training/test_contract.py proves that they are used.

    def _get_train_sampler(self, train_dataset=None):
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochSampler(size, self._lengths, self.args.seed)

    def log(self, logs, start_time=None):
        model = self._bare_model()
        if model.mixing is not None:
            with torch.no_grad():
                keys, values = (sharded.whole(alpha).tolist() for alpha in model.mixing())
            logs |= {"alpha_k": sum(keys) / len(keys), "alpha_v": sum(values) / len(values)}
        if "loss" in logs or "eval_loss" in logs:
            entry = {"step": self.state.global_step}
            entry |= {key: float(logs[key]) for key in ("loss", "eval_loss", "grad_norm", "learning_rate") if key in logs}
            if model.mixing is not None:
                entry |= {"alpha_k": [round(x, 5) for x in keys], "alpha_v": [round(x, 5) for x in values]}
            self._entries.append(entry)
        super().log(logs, start_time)

    def mean_loss(self) -> float:
        """Mean training loss over all updates, resumed ones included; each entry of the log stands for those since the last."""
        entries = [entry for entry in self._entries if "loss" in entry]
        steps = [entry["step"] - before for entry, before in zip(entries, [0, *(e["step"] for e in entries)], strict=False)]
        return sum(entry["loss"] * count for entry, count in zip(entries, steps, strict=True)) / max(1, sum(steps))

    def last_validation(self) -> dict[str, float]:
        """`eval_loss` after the last update, logged once."""
        losses = [
            entry["eval_loss"] for entry in self._entries if "eval_loss" in entry and entry["step"] == self.state.global_step
        ]
        return {"eval_loss": losses[-1]} if losses else self.evaluate()

    def log_text(self) -> str:
        """training_log.jsonl so far."""
        return "".join(json.dumps(entry) + "\n" for entry in self._entries)

    def save_model(self, output_dir=None, _internal_call=False):
        if self.is_fsdp_enabled:  # the Trainer's own gathers the base too, or saves nothing
            self._save(output_dir, sharded.whole_state(self._bare_model()))
        else:
            super().save_model(output_dir, _internal_call)

    def _bare_model(self) -> BituneModel:
        return self.accelerator.unwrap_model(self.model)

    def _save(self, output_dir=None, state_dict=None):
        if not self.args.should_save:
            return
        model = self._bare_model()
        model.log = self.log_text()
        write(model.to_checkpoint(state_dict), Path(output_dir or self.args.output_dir) / MODEL_FOLDER)

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            seal(Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}", self._run)

    # Of a model in shards the Trainer would save the base too, and PyTorch read no optimizer's state that lacks a weight: in the last
    # layer the second adapter has some that never get a gradient.

    def _save_optimizer_and_scheduler(self, output_dir):
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        states = {OPTIMIZER_NAME: sharded.whole_moments(self.optimizer), SCHEDULER_NAME: self.lr_scheduler.state_dict()}
        if self.args.should_save:
            for name, state in states.items():
                torch.save(state, Path(output_dir) / name)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if not self.is_fsdp_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer, scheduler = (torch.load(Path(checkpoint) / name, "cpu") for name in (OPTIMIZER_NAME, SCHEDULER_NAME))
        sharded.load_moments(self.optimizer, optimizer)
        self.lr_scheduler.load_state_dict(scheduler)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if model is not None:  # in shards by now: `_run` has loaded it before
            return
        saved = read(Path(resume_from_checkpoint) / MODEL_FOLDER)
        self._bare_model().load(saved)
        self._entries = [json.loads(line) for line in (saved.log or "").splitlines()]


# Up to here, forward and backward through torch's plain attention on a CPU take less time than through its flash kernel,
# which works in blocks made for long sequences: 0.8 x at 32 tokens, the same at 150, 1.2 x at 256.
_SHORT_PROMPT = 128


def _attention_kernels(prompt_ids: torch.Tensor):
    if prompt_ids.device.type == "cpu" and prompt_ids.shape[1] <= _SHORT_PROMPT:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def training_facts(model: BituneModel, settings: TrainingSettings, figures: dict[str, float], data: dict[str, object]) -> dict:
    """What a checkpoint keeps about its training, as plain JSON values; `data` says what it was trained on."""
    names = ("train_loss", "train_runtime", "eval_loss", "epoch")
    rounded = {name: round(figures[name], 6) for name in names if name in figures}
    return {"data": data, "settings": asdict(settings), "trainable_parameters": model.trainable_parameters(), **rounded}
