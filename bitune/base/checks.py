"""Checks of a base's files before transformers reads them: kind and size, how deep their JSON is nested, how many layers they name.

transformers builds whatever a config names: a list of a billion layers, before it looks at the weights.
"""

import json
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from transformers import CONFIG_MAPPING, PreTrainedConfig

from bitune.base.sources import weight_files
from bitune.errors import BaseNotFoundError, reason, shown
from bitune.files import JSON_BYTES, check_file, check_nesting, read_bytes, read_header, read_text

_MIB = 1024**2
TEMPLATE_BYTES = _MIB
"""Of a chat template; long ones, with tools, have some ten thousand."""
VOCABULARY_BYTES = 256 * _MIB
"""Of a file that lists a vocabulary; one of 260,000 tokens has 33 MB as JSON."""

_LIMITS = {
    "config.json": JSON_BYTES,
    "generation_config.json": JSON_BYTES,
    "special_tokens_map.json": JSON_BYTES,
    "processor_config.json": JSON_BYTES,
    "preprocessor_config.json": JSON_BYTES,
    "tokenizer_config.json": 2 * JSON_BYTES,
    "added_tokens.json": 2 * JSON_BYTES,
    "chat_template.json": TEMPLATE_BYTES,
    "chat_template.jinja": TEMPLATE_BYTES,
    "tokenizer.json": VOCABULARY_BYTES,
    "vocab.json": VOCABULARY_BYTES,
    "vocab.txt": VOCABULARY_BYTES,
    "merges.txt": VOCABULARY_BYTES,
    "tokenizer.model": VOCABULARY_BYTES,
    "spiece.model": VOCABULARY_BYTES,
    "sentencepiece.bpe.model": VOCABULARY_BYTES,
}
"""Files that transformers reads by these names -> the most bytes that are read of each."""
_OBJECTS = ("config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json", "added_tokens.json")

# Settings that transformers counts up to while it makes a config or a model, by the ends of their names in all families.
_COUNTED = re.compile(r"^(n|num)_|(layers?|blocks|depth|experts|labels)$")
_NOT_COUNTED = re.compile(r"^max_|position|ctx|embd|embed|vocab|words|tokens")  # max_window_layers of Qwen2 is a bound
MAX_COUNTED = 100_000
_GGUF_COUNTS = struct.Struct("<IIQQ")  # magic, version, tensors, keys
MAX_NUMBER = 2**31
"""No width, count, length or token id of a model is larger."""
_MAX_OF_TORCH = 2**63 - 1
"""The largest integer of torch; the base of a rotary embedding (rope_theta) passes MAX_NUMBER where a context was extended."""
_OBJECTS_IN_CONFIG = ("quantization_config", "id2label", "label2id")
_TEXTS = ("model_type", "dtype", "torch_dtype")
_ROPE_NUMBERS = ("rope_theta", "factor", "original_max_position_embeddings", "partial_rotary_factor")
_LAYERS = re.compile(r"(^|_)layers?$")


def check_files(folder: Path, tensors: int | None = None) -> None:
    """BaseNotFoundError unless the files of a folder in transformers' layout can be given to transformers.

    Args:
        folder: of a base.
        tensors: how many its weights are, where these are not here; else the headers of its weights say so.
    """
    for file, limit in _files(folder):
        check_file(file, limit, BaseNotFoundError)
    objects = {name: _read_object(folder / name) for name in _OBJECTS if (folder / name).exists()}
    template = objects.get("tokenizer_config.json", {}).get("chat_template")
    if (size := len(str(template))) > TEMPLATE_BYTES:
        raise BaseNotFoundError(
            f"{folder / 'tokenizer_config.json'} has a chat_template of {size:,} characters and at most {TEMPLATE_BYTES:,} are read; it is "
            "not what its name says: replace it."
        )
    sizes = list(_sizes(objects["config.json"]))
    _check_kinds(folder / "config.json", objects["config.json"], sizes)
    _check_tokenizer_kinds(folder, objects)
    if tensors is None:
        headers = (read_header(folder / name, sys.maxsize, BaseNotFoundError) for name in weight_files(folder))
        tensors = sum(len(header.tensors) for header in headers)
    for name, value in sizes:
        most = min(MAX_COUNTED, tensors) if _LAYERS.search(name) else MAX_COUNTED
        if _COUNTED.search(name) and not _NOT_COUNTED.search(name) and abs(value) > most:
            raise BaseNotFoundError(
                f"{folder / 'config.json'} has {name} {shown(value)}, and its weights are {tensors:,} tensors; download or copy both "
                "again."
            )


def _check_kinds(file: Path, config: dict, sizes: Iterable[tuple[str, int]]) -> None:
    """BaseNotFoundError for a number that is too large, or a value of another type, that transformers would use unchecked."""
    most = dict.fromkeys(_ROPE_NUMBERS, _MAX_OF_TORCH)
    wrong = [(name, value) for name, value in sizes if abs(value) > most.get(name, MAX_NUMBER)]
    wrong += [(name, config[name]) for name in _TEXTS if not isinstance(config.get(name), str | None)]
    wrong += [(name, config[name]) for name in _OBJECTS_IN_CONFIG if not isinstance(config.get(name), dict | None)]
    ropes = [part for part in (config.get("rope_parameters"), config.get("rope_scaling")) if isinstance(part, dict)]
    ropes += [part for rope in ropes for part in rope.values() if isinstance(part, dict)]  # some have one for each type of layer
    for rope in ropes:
        wrong += [(name, rope[name]) for name in ("rope_type", "type") if not isinstance(rope.get(name, ""), str)]
        wrong += [(name, rope[name]) for name in _ROPE_NUMBERS if not isinstance(rope.get(name), int | float | None)]
    _refuse_first((file, name, value) for name, value in wrong)


def _check_tokenizer_kinds(folder: Path, objects: dict[str, dict]) -> None:
    """BaseNotFoundError for a value of another type in a tokenizer's files that transformers would use unchecked."""
    kinds = {"tokenizer_class": str | None, "model_max_length": int | float | None, "chat_template": str | list | dict | None}
    settings, file = objects.get("tokenizer_config.json", {}), folder / "tokenizer_config.json"
    wrong = [(file, name, settings[name]) for name, kind in kinds.items() if not isinstance(settings.get(name), kind)]
    templates = settings.get("chat_template")
    if isinstance(templates, list) and not all(isinstance(template, dict) for template in templates):
        wrong.append((file, "chat_template", templates))
    added = objects.get("added_tokens.json", {})
    wrong += [(folder / "added_tokens.json", shown(token), value) for token, value in added.items() if type(value) is not int]
    _refuse_first(wrong)


def _refuse_first(wrong: Iterable[tuple[Path, str, object]]) -> None:
    """BaseNotFoundError for the first of these values, each with its file and name; nothing where there is none."""
    for file, name, value in wrong:
        raise BaseNotFoundError(f"{file} has {name} {shown(value)}, which makes no sense; copy or download it again.")


def check_gguf_layers(file: Path, layers: int) -> None:
    """BaseNotFoundError for a GGUF file that promises more layers than it has tensors."""
    counts = read_bytes(file, sys.maxsize, BaseNotFoundError, at_most=_GGUF_COUNTS.size)
    _, _, tensors, _ = _GGUF_COUNTS.unpack(counts.ljust(_GGUF_COUNTS.size, b"\0"))
    if layers > tensors:
        raise BaseNotFoundError(
            f"{file} promises {shown(layers)} layers and has {tensors:,} tensors; it is damaged: download or copy it again."
        )


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """The files that are there and that transformers may read, and the most bytes of each."""
    for name, limit in _LIMITS.items():
        if (folder / name).exists() or (folder / name).is_symlink():
            yield folder / name, limit
    for template in (folder / "additional_chat_templates").glob("*.jinja"):
        yield template, TEMPLATE_BYTES


def _read_object(file: Path) -> dict:
    """The JSON object in a file. A key that stands twice is read as transformers does: the last one counts."""
    text = read_text(file, _LIMITS[file.name], BaseNotFoundError)
    try:
        value = json.loads(text)
        check_nesting(value)
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__} in place of a JSON object")
    except (ValueError, RecursionError) as error:
        raise BaseNotFoundError(
            f"The base at {file.parent} could not be loaded: {file.name} is not readable JSON ({reason(error)}); copy or download it again."
        ) from error
    return value


def _sizes(config: dict) -> Iterator[tuple[str, int]]:
    """Every whole number of a config that a model may be built by, with its name; those of its parts too.

    What the config class of the family never names, such as a note about the training, is no such number.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str):
        yield from _numbers(config)
    elif kind in CONFIG_MAPPING:  # of another family transformers builds nothing
        yield from _numbers(config, CONFIG_MAPPING[kind])


def _numbers(settings: dict, family: type[PreTrainedConfig] | None = None) -> Iterator[tuple[str, int]]:
    """The whole numbers of a config or a part of one, all of them without a config class."""
    named = None if family is None else _names(family)
    parts = {} if family is None else family.sub_configs_defaults
    for name, value in settings.items():
        if named is not None and name not in named:
            continue
        if isinstance(value, dict) and name in parts:
            own = value.get("model_type", parts[name].model_type)
            yield from _numbers(value, CONFIG_MAPPING[own] if isinstance(own, str) and own in CONFIG_MAPPING else None)
        elif isinstance(value, dict):
            yield from _numbers(value)
        elif type(value) is int:
            yield str(name), value


def _names(family: type[PreTrainedConfig]) -> set[str]:
    """What a config class reads: its fields, their other names, and the older names that its own code takes over into them."""
    names = {field.name for field in fields(family)} | family.attribute_map.keys() | set(_ROPE_NUMBERS)
    for code in (part.__post_init__.__code__ for part in family.__mro__ if "__post_init__" in vars(part)):
        names.update(code.co_names, (text for text in code.co_consts if isinstance(text, str)))
    return names
