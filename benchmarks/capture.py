"""What attention capture costs: python -m benchmarks.capture [--tokens 128] [--memory-tokens 1024] [--rounds 7]

Ratios of the same prompt passes with and without capture, interleaved in one run, median over rounds; and how far memory rises
above the loaded model while a long prompt is summarized in all layers.
"""

import argparse

import torch

import bitune
from benchmarks.measures import in_turn, peak_above
from bitune.model.maps import attention_maps, recording, summarize
from bitune.model.prefill import run_passes
from bitune.schema.variants import PromptPass

PASSES = [(PromptPass(None, "causal"), 0), (PromptPass(None, "bidirectional"), 0)]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--memory-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    engine = bitune.Engine(bitune.load_base(device="cpu", dtype="float32"))
    manager = engine.manager
    ids = torch.randint(3, 40_000, (1, options.tokens))
    ones = torch.ones_like(ids)

    def plain():
        run_passes(manager, ids, ones, PASSES)

    def captured(only: set[int] | None, reduce):
        with recording(manager.model, reduce, only):
            run_passes(manager, ids, ones, PASSES)

    works = {
        "plain": plain,
        "one layer": lambda: captured({15}, lambda layer, weights: weights.to(torch.float16).numpy()),
        "summary of all layers": lambda: captured(None, lambda layer, weights: [summarize(row) for row in weights]),
    }
    ratios = in_turn(works, options.rounds)
    print(
        f"{options.tokens} tokens, two passes, median of {options.rounds}: {ratios['plain'].seconds * 1000:.0f} ms without capture"
    )
    for name in ("one layer", "summary of all layers"):
        print(f"{name}: {ratios[name]}")
    variant = bitune.Variant(tuple(p for p, _ in PASSES), bitune.MixingRatios.constant(30, 0.5), None)
    long = torch.randint(3, 40_000, (options.memory_tokens,)).tolist()
    most = peak_above(lambda: attention_maps(manager, variant, long, [], []))
    print(f"all-layer summary of {options.memory_tokens} tokens: {most / 2**30:.2f} GB above the loaded model")


if __name__ == "__main__":
    main()
