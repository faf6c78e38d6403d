"""What PEFT is known to raise where it cannot put an adapter on a base, and the sentence for each; and what it warns of in vain.

The table was made by giving PEFT configs that make no sense. What is not in it, lack of memory above all, passes with its own name.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from bitune.errors import CheckpointError, reason


@dataclass(frozen=True)
class _Known:
    """`kind`: a class of exceptions. `sign`: is found in its text. `sentence`: holds {reason}, and {0} for a group of `sign`."""

    kind: type[Exception]
    sign: str
    sentence: str


_NO_PLACE = "does not fit this base: {reason}; load it on the base it was made for."
_NO_SENSE = "has a setting that PEFT cannot carry out ({reason}); correct its config."
_KNOWN = (
    _Known(ValueError, "not found in the base model", _NO_PLACE),
    _Known(ValueError, "modules were (?:excluded|targeted)", _NO_PLACE),
    _Known(ValueError, "without also targeting", _NO_PLACE),
    _Known(
        ValueError,
        r"Target module (\w+)\b.* is not supported",
        "does not fit this base: among its target_modules here is a module of the class {0}, which PEFT does not adapt in this way; "
        "load it on the base it was made for.",
    ),
    _Known(ValueError, "incompatible with Mamba", _NO_PLACE),
    _Known(
        ValueError,
        "No `target_modules` passed|Please specify `",
        "does not say which modules it adapts; name its target_modules.",
    ),
    _Known(ValueError, "target_modules should", _NO_SENSE),
    _Known(ValueError, "`r` should be a positive integer", _NO_SENSE),
    _Known(ValueError, "dropout probability", _NO_SENSE),
    _Known(ValueError, "nitialization", _NO_SENSE),
    _Known(ValueError, "lora_bias=True is not supported|variant combination", _NO_SENSE),
    _Known(re.error, "", "has a setting that is no regular expression ({reason}); correct its config."),
)


# Warnings that are not about anything a person did, or could do.
_IRRELEVANT = (
    ("`is_gradient_checkpointing` is deprecated", FutureWarning),  # PEFT asks transformers for a property under its old name
    ("Already found a `peft_config` attribute", UserWarning),
    ("fan_in_fan_out is set to", UserWarning),  # PEFT sets it layer by layer to what the layer is
    ("Model has `tie_word_embeddings=True`", UserWarning),  # about merging adapters into the weights
)


@contextlib.contextmanager
def injection_errors(name: str) -> Iterator[None]:
    """Raise what PEFT is known to raise for a config as a CheckpointError in one sentence; any other exception passes as it is.

    Args:
        name: What the sentence begins with.
    """
    try:
        with warnings.catch_warnings():
            for text, category in _IRRELEVANT:
                warnings.filterwarnings("ignore", text, category)
            yield
    except Exception as error:
        for known in _KNOWN:
            match = re.search(known.sign, str(error), re.DOTALL)
            if isinstance(error, known.kind) and match:
                raise CheckpointError(f"{name} {known.sentence.format(*match.groups(), reason=reason(error))}") from error
        raise
