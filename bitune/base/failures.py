"""What loading a base is known to raise, and the sentence for each; what is not in a table here passes with its own name.

The tables were made by damaging files and seeing what transformers, tokenizers, safetensors and gguf raise.
"""

import contextlib
import json
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from bitune.base.sources import Weights
from bitune.errors import (
    BaseNotFoundError,
    BituneError,
    ConfigError,
    UnsupportedModelError,
    disk_failure,
    is_out_of_memory,
    reason,
)


@dataclass(frozen=True)
class Known:
    """An exception of a library and what it means.

    `kind`: its class; subclasses count too, except where it is Exception itself. `signs`: one of them stands in its text; empty
    for any text. `sentence` may hold {path}, {reason} and {version}.
    """

    kind: type[Exception]
    sentence: str
    error_class: type[BituneError] = BaseNotFoundError
    signs: tuple[str, ...] = ()

    def fits(self, error: Exception) -> bool:
        if not (type(error) is Exception if self.kind is Exception else isinstance(error, self.kind)):
            return False
        return not self.signs or any(sign in str(error) for sign in self.signs)


_NOT_LOADED = "The base at {path} could not be loaded: "
_AGAIN = "; copy or download it again."
_NO_SENSE = _NOT_LOADED + "its config.json holds a value that makes no sense ({reason})" + _AGAIN

_MISSING_PACKAGE = Known(ImportError, "The base at {path} needs a package that is not installed: {reason}; install it.")

_FOREIGN = Known(
    ValueError,  # transformers raises no class of its own for an architecture that it does not have
    "The base at {path} is of a kind that transformers {version} does not know, and code that comes with a model is never run: "
    "{reason}; choose a model that transformers has built in.",
    UnsupportedModelError,
    signs=(
        "contains custom code",
        "does not recognize this architecture",
        "Should have a `model_type` key",
        "not supported yet",
    ),
)

MODEL_FAILURES = (
    _MISSING_PACKAGE,
    _FOREIGN,
    Known(SafetensorError, _NOT_LOADED + "its weights are damaged or cut short ({reason})" + _AGAIN),
    Known(StrictDataclassError, _NO_SENSE),
    Known(
        RuntimeError,
        _NOT_LOADED + "its weights have other shapes than its config.json says" + _AGAIN,
        signs=("ignore_mismatched_sizes",),
    ),
    # What older families say of sizes that do not go together, torch of one below 0 and of a dtype that it has not, Python of a label.
    Known(ValueError, _NO_SENSE, signs=("divisible by", "invalid literal for int()")),
    Known(RuntimeError, _NO_SENSE, signs=("negative dimension",)),
    Known(AttributeError, _NO_SENSE, signs=("module 'torch' has no attribute",)),
    Known(
        AssertionError,  # torch's, when it makes the embedding
        _NOT_LOADED + "its config.json has a pad_token_id that its vocabulary does not have; correct it there.",
        signs=("Padding_idx must be within",),
    ),
    Known(
        ValueError,
        _NOT_LOADED
        + "its config.json has a quantization_config that names no quant_method; correct it there, or download it again.",
        signs=("has no `quant_method` attribute",),
    ),
    Known(
        KeyError,
        _NOT_LOADED + "its config.json holds no complete rotary embedding ({reason}); correct it there, or download it again.",
        signs=("Missing required keys in `rope_parameters`",),
    ),
    Known(KeyError, _NOT_LOADED + "its model.safetensors.index.json lacks 'metadata'" + _AGAIN, signs=("'metadata'",)),
    # transformers' own, without a number of the system, is about a file that is missing or that it cannot parse.
    Known(OSError, _NOT_LOADED + "{reason}" + _AGAIN),
)

GGUF_FAILURES = (
    *MODEL_FAILURES,
    # The two readers (of gguf and of transformers) unpack and reshape whatever bytes the file has, and check none of them.
    Known(ValueError, _NOT_LOADED + "the file is damaged or cut short ({reason})" + _AGAIN),
    Known(struct.error, _NOT_LOADED + "the file is damaged or cut short ({reason})" + _AGAIN),
)

_UNREADABLE = _NOT_LOADED + "its tokenizer files are damaged or incomplete ({reason})" + _AGAIN
TOKENIZER_FAILURES = (
    _MISSING_PACKAGE,
    Known(ValueError, _UNREADABLE),
    Known(KeyError, _UNREADABLE),
    Known(OSError, _UNREADABLE),
    Known(TypeError, _UNREADABLE, signs=("has to be either str or AddedToken", "extra_special_tokens must be a list")),
    # The library tokenizers has no class of its own: what its Rust code reports is a bare Exception.
    Known(Exception, _UNREADABLE),
)
_LESS_MEMORY = "free memory, choose another device, or a dtype of 16 bits"


@contextlib.contextmanager
def load_errors(weights: Weights, known: Sequence[Known]) -> Iterator[None]:
    """Raise what loading is known to raise as a BituneError in one sentence; any other exception passes as it is.

    Args:
        weights: what is loaded in the block.
        known: MODEL_FAILURES, GGUF_FAILURES or TOKENIZER_FAILURES, by what the block reads.
    """
    path = weights.folder if weights.gguf is None else weights.folder / weights.gguf
    try:
        yield
    except BituneError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ConfigError(f"{weights.id} does not fit into memory ({reason(error)}); {_LESS_MEMORY}.") from error
        if isinstance(error, OSError) and error.errno is not None:
            failure = disk_failure(error)
            raise BaseNotFoundError(_NOT_LOADED.format(path=path) + f"{failure.cause}; {failure.remedy}.") from error
        if weights.gguf is None and (damage := _damaged_json(weights.folder)):
            raise BaseNotFoundError(_NOT_LOADED.format(path=path) + damage + _AGAIN) from error
        if weights.gguf is None and (refused := _refused_generation_config(weights.folder)) == reason(error):
            raise BaseNotFoundError(
                _NOT_LOADED.format(path=path)
                + f"its generation_config.json holds a value that transformers refuses ({refused}); correct "
                "it there, or remove the file."
            ) from error
        if isinstance(error, KeyError) and weights.gguf is None and _is_value_in_config(str(error.args[0]), weights.folder):
            raise UnsupportedModelError(
                f"The base at {path} names {error.args[0]!r} in its config.json, which transformers {transformers.__version__} does "
                "not know; update transformers, or choose another model."
            ) from error
        if isinstance(error, ZeroDivisionError) and weights.gguf is None and (zeros := _zeros(weights.folder)):
            raise BaseNotFoundError(
                _NOT_LOADED.format(path=path)
                + f"its config.json has {' and '.join(zeros)} 0, by which no model can be divided{_AGAIN}"
            ) from error
        for row in known:
            if row.fits(error):
                sentence = row.sentence.format(path=path, reason=reason(error), version=transformers.__version__)
                raise row.error_class(sentence) from error
        raise


@contextlib.contextmanager
def move_errors(weights: Weights, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Raise ConfigError where the memory of a device does not hold the base; any other exception passes as it is."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"{weights.id} does not fit into the memory of {device} in {dtype} ({reason(error)}); {_LESS_MEMORY}."
        ) from error


def _is_value_in_config(name: str, folder: Path) -> bool:
    """Whether config.json gives `name` as a value: transformers looks kinds of activations and of positions up by it."""
    config = folder / "config.json"
    return re.search(rf':\s*"{re.escape(name)}"', config.read_text("utf-8")) is not None


def _zeros(folder: Path) -> list[str]:
    """The sizes in config.json that are 0: what is no token id and no rate."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return [name for name, value in config.items() if type(value) is int and value == 0 and not name.endswith("_id")]


def _refused_generation_config(folder: Path) -> str | None:
    """What transformers says against generation_config.json alone; it compares values before it looks at their types."""
    if not (folder / "generation_config.json").is_file():
        return None
    try:
        transformers.GenerationConfig.from_pretrained(folder)
    except (AttributeError, TypeError, ValueError) as error:
        return reason(error)
    return None


def _damaged_json(folder: Path) -> str | None:
    """The first of the tokenizer's files that holds no JSON object, with what is wrong; None if all are well.

    Of the configs `check_files` has made sure before.
    """
    for name in ("tokenizer.json", "vocab.json"):
        if not (folder / name).is_file():
            continue
        try:
            content = json.loads((folder / name).read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            return f"{name} is not readable JSON ({reason(error)})"
        if not isinstance(content, dict):
            return f"{name} holds {type(content).__name__} in place of a JSON object"
    return None
