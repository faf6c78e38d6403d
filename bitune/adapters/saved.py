"""The tensors in an adapter's file: which of them are the adapter's own, which PEFT wrote beside them, and which do not fit.

Beside an adapter's own tensors a file of PEFT may hold layers of the base (`save_embedding_layers`, on by itself where an embedding
is adapted or the vocabulary was resized) and, in older versions of PEFT, tensors of other adapters of the same model.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitune.errors import CheckpointError

PREFIX = "base_model.model."  # before every key in a PEFT folder
_MAGNITUDE = "lora_magnitude_vector"  # its module's `.weight` is left out of the key in files of PEFT 0.11 and later
# `q_proj.ia3_l.other`, and `lora_A_2.weight` of an adapter `default_2` in the file of `default`: PEFT before 0.19 took the saved
# adapter's name out of every key that has it anywhere.
_OF_ANOTHER_ADAPTER = re.compile(
    rf"(.+\.(?:lora_[AB]|lora_embedding_[AB]|{_MAGNITUDE}|ia3_l))(?!(?:\.weight|\.bias)?$)[^.]*(?:\.[^.]+){{0,2}}"
)

_OF_A_LAYER = re.compile(rf"(.+)\.(?:lora_[AB]\.weight|lora_B\.bias|lora_embedding_[AB]|{_MAGNITUDE}|ia3_l)")
_ONE_ADAPTER = "copy the config and the weights of one adapter"
_ITS_BASE = "load it on the base it was trained on"


def own_tensors(
    adapter: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor], model: PreTrainedModel
) -> dict[str, Tensor]:
    """The tensors of an adapter among those of its file.

    Args:
        adapter: What the error calls it.
        expected: Its tensors as they are on the base, keys as in a PEFT folder.
        given: All tensors of its file.
        model: The base, which may carry adapters.

    Returns:
        Tensors with the keys and shapes of `expected`.

    Raises:
        CheckpointError: Some are lacking, have other shapes, belong nowhere, or are layers of another base than this one.
    """
    own = {_as_peft_writes_it(key): value for key, value in given.items()}
    beside = {key: own.pop(key) for key in own.keys() - expected.keys()}
    base = _base_tensors(model) if beside or _reshaped(expected, own) else {}
    _check_vocabulary(adapter, expected, own | beside, base, model)
    for key, value in sorted(beside.items()):
        layer = _layer_of_base(key)
        if layer in base and base[layer].shape == value.shape:
            _check_same_layer(adapter, layer, base[layer], value)
        elif not _is_of_another_adapter(key, own):
            own[key] = value
    _check_same_tensors(adapter, expected, own, {name.replace(".base_layer", "") for name, _ in model.named_modules()})
    return own


def _as_peft_writes_it(key: str) -> str:
    return key.removesuffix(".weight") if key.endswith(f".{_MAGNITUDE}.weight") else key


def _is_of_another_adapter(key: str, own: Mapping[str, Tensor]) -> bool:
    match = _OF_ANOTHER_ADAPTER.fullmatch(key)
    return match is not None and (match[1] in own or f"{match[1]}.weight" in own)


def _layer_of_base(key: str) -> str:
    """The name in the bare base of a tensor that is called `key` in an adapter's file."""
    return key.removeprefix(PREFIX).replace(".base_layer.", ".")


def _base_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every parameter of the base by its name there, tied ones by each of their names."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {name.replace(".base_layer.", "."): parameter for name, parameter in parameters}


def _check_same_layer(adapter: str, layer: str, ours: Tensor, saved: Tensor) -> None:
    """CheckpointError unless a layer that was saved with an adapter is the base's own, to the rounding of the coarser dtype, or of both."""
    if ours.is_meta:
        raise CheckpointError(
            f"The file of adapter {adapter!r} holds the base's layer {layer!r}, which lies on the disk here and cannot be compared; "
            "save the adapter with save_embedding_layers=False."
        )
    ours, saved = ours.detach(), saved.to(ours.device)
    rounded = torch.equal(saved.to(ours.dtype), ours) or torch.equal(ours.to(saved.dtype), saved)
    if not (rounded or _both_of_one(saved, ours) or _both_of_one(ours, saved)):
        raise CheckpointError(
            f"The file of adapter {adapter!r} holds the base's layer {layer!r} with other numbers than this base has, and all adapters "
            "share the base; load it on the base it was trained on."
        )


def _both_of_one(half: Tensor, brain: Tensor) -> bool:
    """Whether `half` are the numbers of float16, `brain` those of bfloat16, and both can be the same numbers, rounded. What the numbers
    are counts, not the dtype they are kept in: a base may have been read in 16 bits and converted."""
    half, brain = half.float(), brain.float()
    if not torch.equal(half.half().float(), half) or not torch.equal(brain.bfloat16().float(), brain):
        return False
    # How far float16 rounds; its smallest numbers lie further apart than those of bfloat16.
    by = (half.abs() * torch.finfo(torch.float16).eps / 2).clamp(min=torch.finfo(torch.float16).smallest_normal * 2**-11)
    return bool(((half - by).bfloat16() <= brain).all() and (brain <= (half + by).bfloat16()).all())


def _check_vocabulary(
    adapter: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor], base: Mapping[str, Tensor], model: PreTrainedModel
) -> None:
    """CheckpointError where the shapes say that an adapter was trained with a vocabulary of another size than the base's."""
    if not base:
        return
    embeddings = {
        id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None
    }
    layers = {name.removesuffix(".weight") for name, parameter in base.items() if id(parameter) in embeddings}
    for key, value in given.items():
        layer = next((name for name in layers if _layer_of_base(key).startswith(f"{name}.")), None)
        here = expected.get(key, base.get(_layer_of_base(key)))
        if layer is None or here is None or here.dim() != value.dim():
            continue
        size = base[f"{layer}.weight"].shape[0]
        different = [(ours, theirs) for ours, theirs in zip(here.shape, value.shape, strict=True) if ours != theirs]
        if len(different) == 1 and different[0][0] == size:
            raise CheckpointError(
                f"Adapter {adapter!r} was trained with a vocabulary of {different[0][1]} tokens and this base has {size} "
                f"({_layer_of_base(key)!r}); load it on the base whose vocabulary was resized for it."
            )


def _reshaped(expected: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    return [key for key, value in expected.items() if key in own and own[key].shape != value.shape]


def _check_same_tensors(adapter: str, expected: Mapping[str, Tensor], own: Mapping[str, Tensor], layers: Collection[str]) -> None:
    """CheckpointError unless `own` has the keys and shapes of `expected`; `layers` are the names of the base's."""
    lacking, foreign = sorted(expected.keys() - own.keys()), sorted(own.keys() - expected.keys())
    reshaped = sorted(_reshaped(expected, own))
    misnamed = [key for key in foreign if PREFIX + key in expected or _is_of_another_adapter(key, expected)]
    not_asked_for = [key for key in foreign if (match := _OF_A_LAYER.fullmatch(key)) and _layer_of_base(match[1]) in layers]
    of_config = [key for key in reshaped if _is_reshaped_by_config(key, own[key].shape, expected[key].shape)]
    for problem, keys, remedy in (
        ("have, under names that PEFT's save_pretrained does not write,", misnamed, "save it with save_pretrained"),
        ("have, and its config does not ask for,", not_asked_for, _ONE_ADAPTER),
        ("lack", lacking, f"{_ONE_ADAPTER}, and {_ITS_BASE}"),
        ("have, and this base has no place for,", foreign, _ITS_BASE),
        ("have in another shape than its config asks for", of_config, _ONE_ADAPTER),
        ("have in another shape", reshaped, _ITS_BASE),
    ):
        if keys:
            shapes = f" ({tuple(own[keys[0]].shape)} for {tuple(expected[keys[0]].shape)})" if keys[0] in reshaped else ""
            count = f"{len(keys)} of {len(expected if keys is lacking else own)}"
            raise CheckpointError(
                f"The weights for adapter {adapter!r} {problem} {count} tensors, first {keys[0]!r}{shapes}; {remedy}."
            )


def _is_reshaped_by_config(key: str, saved: Sequence[int], here: Sequence[int]) -> bool:
    """Whether two shapes of a tensor differ by the rank alone, or by whether IA3 scales what goes in or what comes out."""
    if len(saved) != 2 or len(here) != 2:
        return False
    if key.endswith(".ia3_l"):
        return (saved[0] == 1) != (here[0] == 1)
    rank, other = (0, 1) if re.search(r"\.lora_(embedding_)?A(\.weight)?$", key) else (1, 0)
    return saved[rank] != here[rank] and saved[other] == here[other]
