"""What attention capture costs: the same prompt passes with and without it, and how far memory rises above the loaded model while
a long prompt is summarized in all layers."""

import torch

from benchmarks.bases import open_engine
from benchmarks.measures import Measured, amount, in_turn, peak_above, ratio, timed
from benchmarks.setting import Setting
from bitune.model.maps import attention_maps, recording, summarize
from bitune.model.prefill import run_passes
from bitune.schema.variants import MixingRatios, PromptPass, Variant

PASSES = (PromptPass(None, "causal"), PromptPass(None, "bidirectional"))


@torch.no_grad()
def capture(setting: Setting) -> dict[str, Measured]:
    """The base read twice, without adapters."""
    manager = open_engine(setting, []).manager
    layers, vocabulary = manager.layout.layers, manager.model.get_input_embeddings().num_embeddings
    ids = torch.randint(3, vocabulary, (1, setting.tokens(128)), device=manager.model.device)
    ones, wanted = torch.ones_like(ids), [(reading, 0) for reading in PASSES]

    def captured(only: set[int] | None, reduce) -> None:
        with recording(manager.model, reduce, only):
            run_passes(manager, ids, ones, wanted)

    works = {
        "without": timed(lambda: run_passes(manager, ids, ones, wanted)),
        "layer": timed(lambda: captured({layers // 2}, lambda layer, weights: weights.to(torch.float16).cpu().numpy())),
        "summary": timed(lambda: captured(None, lambda layer, weights: [summarize(row) for row in weights])),
    }
    times = in_turn(works, setting.rounds)
    variant = Variant(PASSES, MixingRatios.constant(layers, 0.5), None)
    long = torch.randint(3, vocabulary, (setting.tokens(1024),)).tolist()
    most = peak_above(lambda: attention_maps(manager, variant, long, [], []))
    figures = {f"capture-{name}": ratio(times[name], times["without"]) for name in ("layer", "summary")}
    return figures | {"capture-memory": amount([most / 2**30], "GB")}
