"""What a model would say after each of its layers: the logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens").

Where a family has its final norm, whether there is one, what its head is tied to, and by what it scales or caps its logits differs from
family to family. So nothing of that is looked up: the model runs with its layers left out, as if the last of them had given the states after
each layer, and its own code makes logits of them. Who uses this holds the last layer's logits against the model's own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitune.errors import UnsupportedModelError
from bitune.modeling.interface import attention_modules, input_device

Output = Tensor | tuple


class Lens:
    """Looks at a model's layers while it runs."""

    def __init__(self, model: PreTrainedModel, layers: int):
        """UnsupportedModelError where the model's layers are not `layers` modules of a list."""
        self._model, self._layers = model, _decoder_layers(model, layers)
        self._outputs: dict[int, Output] = {}  # of the latest forward, by layer

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Until the end of the block, note what the layers make of each forward."""
        with ExitStack() as hooks:
            for index, layer in enumerate(self._layers):
                handle = layer.register_forward_hook(lambda _module, _given, output, index=index: self._note(index, output))
                hooks.callback(handle.remove)
            yield
        self._outputs.clear()

    def _note(self, index: int, output: Output) -> None:
        self._outputs[index] = output

    def logits(self) -> Tensor:
        """Of the last token of each row of the latest forward, after each layer: [rows, layers, vocabulary].

        To be called in the block of `watching`, with the same adapters: there may be one on the head.
        """
        outputs = [self._outputs[index] for index in range(len(self._layers))]
        last = _state(outputs[-1])
        states = torch.stack([_state(output)[:, -1].to(last.device) for output in outputs], dim=1)
        with _left_out(self._layers, [_with_state(output, states) for output in outputs]):
            ids = torch.zeros(states.shape[:2], dtype=torch.long, device=input_device(self._model))
            return self._model(input_ids=ids, use_cache=False).logits


def _decoder_layers(model: PreTrainedModel, layers: int) -> list[nn.Module]:
    paths = {module: path for path, module in model.named_modules()}
    found = dict.fromkeys(filter(None, (_layer_path(model, paths[module]) for module in attention_modules(model.modules()))))
    if len(found) != layers:
        raise UnsupportedModelError(
            f"{model.config.model_type!r} makes its {layers} layers of keys and values in {len(found)} modules, several in each, so there is no "
            "state after each of them to look at; compare what variants say at their end."
        )
    return [model.get_submodule(path) for path in found]


def _layer_path(model: PreTrainedModel, path: str) -> str | None:
    """The innermost member of a list of modules that holds the attention at `path`. Where that is a member itself, as both attentions of a
    layer of longcat_flash are, it is no layer."""
    path = path.rpartition(".")[0]
    while path:
        above = path.rpartition(".")[0]
        if isinstance(model.get_submodule(above), nn.ModuleList):
            return path
        path = above
    return None


@contextmanager
def _left_out(layers: Sequence[nn.Module], outputs: Sequence[Output]) -> Iterator[None]:
    """Until the end of the block each layer gives its output without computing anything."""
    before = [vars(layer).get("forward") for layer in layers]  # of its own where weights are moved to the device for each call
    try:
        for layer, output in zip(layers, outputs, strict=True):
            layer.forward = lambda *_given, output=output, **_named: output
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _state(output: Output) -> Tensor:
    """What a layer hands to the next one, [rows, tokens, hidden]; some families return more behind it."""
    return output if isinstance(output, Tensor) else output[0]


def _with_state(output: Output, state: Tensor) -> Output:
    return state if isinstance(output, Tensor) else (state, *output[1:])
