"""Records the attention weights of chosen layers while a model runs, without changing what it computes.

A recording attention function, registered with transformers, runs what the model runs and, for the layers asked for, computes the
weights once more with the model family's own eager function, on the same queries, keys and mask.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bitune.errors import UnsupportedModelError
from bitune.modeling.interface import RECORDING, attention_implementation, eager_attention

Take = Callable[[int, Tensor], None]


@dataclass
class Recorder:
    """What runs while recording: the implementation that the model uses, and who takes the weights of which layers."""

    implementation: str
    take: Take
    layers: frozenset[int] | None
    seen: set[int] = field(default_factory=set)


_CURRENT: ContextVar[Recorder | None] = ContextVar("bitune_recorder", default=None)


@contextmanager
def recording(model: PreTrainedModel, take: Take, layers: Collection[int] | None = None) -> Iterator[Recorder]:
    """Hand the attention weights of `layers` (default: every one) to `take(layer, weights [rows, heads, query, key])` until the end of the block.

    Query heads, grouped ones expanded. The weights are the model's (its mask, softcap and sinks included); what it computes
    stays as it was. UnsupportedModelError for a family without an eager attention function.
    """
    before = attention_implementation(model)
    recorder = Recorder(before, take, None if layers is None else frozenset(layers))
    token = _CURRENT.set(recorder)
    try:
        model.set_attn_implementation(RECORDING)
        if attention_implementation(model) != RECORDING:
            raise UnsupportedModelError(
                f"{model.config.model_type!r} does not let its attention function be chosen, so no map can be recorded."
            )
        yield recorder
    finally:
        model.set_attn_implementation(before)
        _CURRENT.reset(token)


def _record(module, query, key, value, attention_mask, **arguments):
    """The attention function under the name RECORDING: [rows, heads, query, dim] in, ([rows, query, heads, dim], None) out."""
    recorder = _CURRENT.get()
    eager = eager_attention(module)
    if eager is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} has no eager attention function, so its weights cannot be computed."
        )
    attention = ALL_ATTENTION_FUNCTIONS.get_interface(recorder.implementation, eager)
    output, weights = attention(module, query, key, value, attention_mask, **arguments)
    recorder.seen.add(module.layer_idx)
    if recorder.layers is None or module.layer_idx in recorder.layers:
        if weights is None:
            weights = eager(module, query, key, value, attention_mask, **arguments)[1]
        # Attention sinks are a key that holds nothing: a column too many in the families that have them.
        recorder.take(module.layer_idx, weights[..., : key.shape[2]])
    return output, None


AttentionInterface.register(RECORDING, _record)
# The additive form: sdpa takes it as well as eager, and it is never left out as the boolean one may be.
AttentionMaskInterface.register(RECORDING, eager_mask)
