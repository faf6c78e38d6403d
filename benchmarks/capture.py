"""What attention capture costs: python -m benchmarks.capture [--tokens 128] [--memory-tokens 1024] [--rounds 7]

Ratios of the same prompt passes with and without capture, interleaved in one run, median over rounds; and how far memory rises
above the loaded model while a long prompt is summarized in all layers.
"""

import argparse
import statistics
import threading
import time
from pathlib import Path

import torch

import bitune
from bitune.attention import attention_maps, recording, summarize
from bitune.prefill import run_passes
from bitune.variants import PromptPass

PASSES = [(PromptPass(None, "causal"), 0), (PromptPass(None, "bidirectional"), 0)]


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_above(work) -> int:
    """Most bytes above the start while `work` runs, looked at every 5 ms."""
    start, most, done = resident(), 0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.005):
            most = max(most, resident() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return most


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--memory-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    engine = bitune.Engine(bitune.load_base(device="cpu", dtype="float32"))
    host = engine.host
    ids = torch.randint(3, 40_000, (1, options.tokens))
    ones = torch.ones_like(ids)

    def plain():
        run_passes(host, ids, ones, PASSES)

    def captured(only: set[int] | None, reduce):
        with recording(host.model, reduce, only):
            run_passes(host, ids, ones, PASSES)

    works = {
        "plain": plain,
        "one layer": lambda: captured({15}, lambda layer, weights: weights.to(torch.float16).numpy()),
        "summary of all layers": lambda: captured(None, lambda layer, weights: [summarize(row) for row in weights]),
    }
    times = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(options.rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{options.tokens} tokens, two passes, median of {options.rounds}: {median['plain'] * 1000:.0f} ms without capture")
    for name in ("one layer", "summary of all layers"):
        ratios = [a / b for a, b in zip(times[name], times["plain"], strict=True)]
        print(f"{name}: {median[name] / median['plain']:.2f} x ({min(ratios):.2f} to {max(ratios):.2f})")
    variant = bitune.Variant(tuple(p for p, _ in PASSES), bitune.MixingRatios.constant(30, 0.5), None)
    long = torch.randint(3, 40_000, (options.memory_tokens,)).tolist()
    most = peak_above(lambda: attention_maps(host, variant, long, [], []))
    print(f"all-layer summary of {options.memory_tokens} tokens: {most / 2**30:.2f} GB above the loaded model")


if __name__ == "__main__":
    main()
