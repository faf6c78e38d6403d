"""What one batch saves: python -m benchmarks.variants [--new-tokens 32] [--rounds 5] [--threads N]

Three variants (base, LoRA, Bitune; random adapters, as speed does not ask what was learned) answer one prompt: in one batch
against one after the other, interleaved in one run, median of ratios. Then the cost of the prompt passes alone: Bitune
against its causal pass alone, the floor being 2.
"""

import argparse
import tempfile
from pathlib import Path

import torch

import bitune
from benchmarks.measures import in_turn
from bitune.model.prefill import run_passes

PROMPT = "The old lighthouse keeper counted the ships, then the gulls, then the waves. " * 6


def load(folder: Path) -> bitune.Engine:
    engine = bitune.Engine(bitune.load_base(device="cpu", dtype="float32"))
    for method in ("lora", "bitune"):
        model = bitune.BituneModel.create(engine.base, method)
        model.save_pretrained(folder / method)
        model.release()
        engine.add_checkpoint(folder / method)
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        engine = load(Path(folder))
    names = list(engine.variants)

    def answer(*chosen: str) -> None:
        list(engine.stream(PROMPT, chosen, template="none", max_new_tokens=options.new_tokens))

    print(f"{torch.get_num_threads()} threads, {options.new_tokens} new tokens, {options.rounds} rounds; median (least to most)")
    works = {"in turn": lambda: [answer(name) for name in names], "together": lambda: answer(*names)}
    print(f"three variants in one batch / one after the other: {in_turn(works, options.rounds)['together']}")
    ids = torch.tensor([engine.prompt_ids(PROMPT, "bitune", template="none")])
    passes = engine.variants["bitune"].passes

    @torch.no_grad()
    def read(count: int) -> None:
        run_passes(engine.manager, ids, torch.ones_like(ids), [(reading, 0) for reading in passes[:count]])

    result = in_turn({"one": lambda: read(1), "both": lambda: read(2)}, options.rounds)["both"]
    print(f"both passes of {ids.shape[1]} tokens / the causal pass alone: {result}")


if __name__ == "__main__":
    main()
