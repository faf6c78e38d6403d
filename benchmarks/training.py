"""What training Bitune costs: python -m benchmarks.training [--prompt 128] [--answer 8] [--batch 8] [--rounds 5] [--threads N]

One update of Bitune (rank 8) against one of LoRA (rank 16, as many parameters) on the same batch, in turn in one run; and how
far memory rises above the loaded model, each in a process of its own. The floor of the ratio is 2 for a prompt much longer
than its answer: two readings in place of one.
"""

import argparse
import multiprocessing
import tempfile
from pathlib import Path

import torch

import bitune
from benchmarks.measures import Work, in_turn, peak_above
from bitune.adapters.kinds import new_peft_config
from bitune.data.batches import Collator, TokenPair
from bitune.training.settings import TrainingSettings
from bitune.training.trainer import BituneTrainer, arguments_of

METHODS = {"lora": 16, "bitune": 8}


def update_of(base: bitune.Base, method: str, options: argparse.Namespace) -> Work:
    """One update of a fresh model, as the Trainer makes it: forward, backward, clipping, AdamW."""
    model = bitune.BituneModel.create(base, method, new_peft_config(base.model, "lora", METHODS[method]))
    generator = torch.Generator().manual_seed(0)
    pairs = [
        TokenPair(*(torch.randint(3, 40_000, (n,), generator=generator).tolist() for n in (options.prompt, options.answer)))
        for _ in range(options.batch)
    ]
    settings = TrainingSettings(max_steps=1, per_device_train_batch_size=options.batch, bf16=True)
    unused = Path(tempfile.gettempdir(), "bitune-benchmark")  # nothing is saved
    trainer = BituneTrainer(model, settings, arguments_of(settings, unused, on_cpu=True), pairs, [])
    batch = Collator(0)(pairs)
    optimizer = trainer.create_optimizer()
    prepared = trainer.accelerator.prepare_model(model)  # puts autocast around its forward
    weights = [p for group in optimizer.param_groups for p in group["params"]]

    def update() -> None:
        with model.manager.under_autocast():
            trainer.compute_loss(prepared, batch).backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad()

    model.train()
    return update


def memory(method: str, options: argparse.Namespace) -> int:
    """Bytes above the loaded base that two updates take at most; to be called in a fresh process."""
    torch.set_num_threads(options.threads)
    base = bitune.load_base(device="cpu", dtype="bfloat16")

    def two() -> None:
        update = update_of(base, method, options)
        update(), update()

    return peak_above(two)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of every prompt")
    parser.add_argument("--answer", type=int, default=8, help="tokens of every answer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = bitune.load_base(device="cpu", dtype="bfloat16")
    ratios = in_turn({method: update_of(base, method, options) for method in METHODS}, options.rounds)
    tokens = options.batch * (options.prompt + options.answer)
    print(f"{options.batch} x ({options.prompt} + {options.answer}) tokens, {options.threads} threads, {options.rounds} rounds")
    for method, ratio in ratios.items():
        print(f"{method:8} {tokens / ratio.seconds:6.0f} tokens/s")
    print(f"an update of Bitune / of LoRA: {ratios['bitune']}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.starmap(memory, [(method, options) for method in METHODS], chunksize=1)
    for method, peak in zip(METHODS, peaks, strict=True):
        print(f"{method:8} {peak / 2**30:5.2f} GB above the loaded base")
    print(f"memory of Bitune / of LoRA: {peaks[1] / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
