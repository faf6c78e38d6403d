"""What training Bitune costs: one update of Bitune (rank 8) against one of LoRA (rank 16, as many parameters) on the same batch,
and how far memory rises above the loaded base, each in a process of its own.

The floor of the ratio is 2 for a prompt much longer than its answer: two readings in place of one.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

import bitune
from benchmarks.bases import RANKS, open_base
from benchmarks.measures import Measured, in_turn, peak_above, ratio, timed
from benchmarks.memory import alone
from benchmarks.setting import Setting
from bitune.adapters.kinds import new_peft_config
from bitune.data.batches import Collator, TokenPair
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import BituneTrainer, arguments_of

PROMPT, ANSWER, BATCH = 128, 8, 8


def update_of(base: bitune.Base, method: str, setting: Setting) -> Callable[[], None]:
    """One update of a fresh model, as the Trainer makes it: forward, backward, clipping, AdamW."""
    model = bitune.BituneModel.create(base, method, new_peft_config(base.model, "lora", RANKS[method]))
    vocabulary = base.model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    lengths = setting.tokens(PROMPT), setting.tokens(ANSWER)
    pairs = [
        TokenPair(*(torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths))
        for _ in range(BATCH)
    ]
    settings = TrainingSettings(max_steps=1, per_device_train_batch_size=BATCH, bf16=True)
    unused = setting.folder / "training"  # nothing is saved
    trainer = BituneTrainer(model, settings, arguments_of(settings, unused, on_cpu=model.device.type == "cpu"), pairs, [])
    batch = {name: tensor.to(model.device) for name, tensor in Collator(0)(pairs).items()}
    optimizer = trainer.create_optimizer()
    prepared = trainer.accelerator.prepare_model(model)  # puts autocast around its forward
    weights = [p for group in optimizer.param_groups for p in group["params"]]

    def run() -> None:
        with model.manager.under_autocast():
            trainer.compute_loss(prepared, batch).backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    model.train()
    return run


def most_memory(method: str, setting: Setting) -> int:
    """Bytes above the loaded base that two updates take at most; to be called in a fresh process."""
    torch.set_num_threads(setting.threads)
    base = open_base(setting)

    def two() -> None:
        run = update_of(base, method, setting)
        run(), run()

    if setting.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        two()
        return torch.cuda.max_memory_allocated() - before
    return peak_above(two)


def update(setting: Setting) -> dict[str, Measured]:
    """Both in turn; then the memory of each."""
    setting = replace(setting, dtype="bfloat16")
    base = open_base(setting)
    times = in_turn({method: timed(update_of(base, method, setting)) for method in RANKS}, setting.rounds)
    memory = {method: [alone(partial(most_memory, method), setting)] for method in RANKS}
    return {
        "training": ratio(times["bitune"], times["lora"]),
        "training-memory": ratio(memory["bitune"], memory["lora"]),
    }
