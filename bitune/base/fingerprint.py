"""A few numbers that tell two bases of one shape apart."""

from collections.abc import Sequence

from transformers import PreTrainedModel

_SAMPLED_TENSORS = 24
_SAMPLED_VALUES = 4


def fingerprint(model: PreTrainedModel) -> tuple[float, ...]:
    """Sample some weights of a bare base, in a fixed order; reads only what it samples.

    Args:
        model: the base before any adapter is injected, as adapters rename the modules they wrap.

    Returns:
        About 4 values from each of 24 tensors, to 5 significant digits; empty where weights are not in memory (on the
        meta device) or packed. Compare with `same_weights`.
    """
    named = sorted(model.named_parameters(), key=lambda item: item[0])
    sampled = named[:: max(1, len(named) // _SAMPLED_TENSORS)]
    values: list[float] = []
    for _, tensor in sampled:
        if tensor.is_meta or not tensor.is_floating_point():
            return ()
        flat = tensor.detach().flatten()
        step = max(1, flat.numel() // _SAMPLED_VALUES)
        values += flat[::step][:_SAMPLED_VALUES].float().tolist()
    return tuple(float(f"{value:.5g}") for value in values)


def same_weights(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two fingerprints are of the same weights, up to the rounding of a 16-bit dtype."""
    if len(first) != len(second):
        return False
    return all(abs(a - b) <= 1e-6 + max(abs(a), abs(b)) / 128 for a, b in zip(first, second, strict=True))
