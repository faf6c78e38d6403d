"""Settings of transformers' `generate`: which ones a measurement uses, and which ones would pass by a mixed cache."""

import copy
import reprlib
from collections.abc import Mapping, Sequence

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitune.errors import ConfigError

# Ways of generating that read the prompt themselves, or bring a cache of their own.
_PAST_THE_CACHE = (
    "assistant_model",
    "cache",
    "cache_implementation",
    "custom_generate",
    "past_key_values",
    "prompt_lookup_num_tokens",
)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    """Tokens that end an answer: the model's own, then the tokenizer's, which training puts behind every answer."""
    configured = model.generation_config.eos_token_id
    ends = [] if configured is None else [configured] if isinstance(configured, int) else list(configured)
    trained = None if tokenizer is None else tokenizer.eos_token_id
    return tuple(dict.fromkeys([*ends, *([] if trained is None else [trained])]))


def before_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens of an answer up to and without the first that ends it: what follows is padding."""
    return tokens[: next((index for index, token in enumerate(tokens) if token in ends), len(tokens))]


def eval_generation_config(ends: Sequence[int], **settings: object) -> GenerationConfig:
    """Settings for measuring: greedy unless told otherwise, with no penalty that the base comes with."""
    plain = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    pad = ends[0] if ends else 0
    return GenerationConfig(**{**plain, **settings}, eos_token_id=list(ends) or None, pad_token_id=pad)


def with_cache(arguments: Mapping[str, object]) -> dict[str, object]:
    """The arguments of `generate` with the cache in use, whatever the base's generation_config.json says."""
    config = arguments.get("generation_config")
    if config is None:
        return {**arguments, "use_cache": True}
    config = copy.deepcopy(config)
    config.use_cache = True  # beside a config, transformers takes no single arguments any more
    return {**arguments, "generation_config": config}


def copies_per_row(default: GenerationConfig, arguments: Mapping[str, object]) -> int:
    """How many rows `generate` makes of each prompt: beams, or returned sequences.

    Args:
        default: The base's own settings, which `generate` falls back on.
        arguments: The arguments of `generate`.

    Raises:
        ConfigError: An argument would read the prompt anew, past the mixed cache, and so answer as if nothing were mixed.
    """
    config = arguments.get("generation_config") or default
    settings = config.to_dict() | dict(arguments)
    for name in _PAST_THE_CACHE:
        if settings.get(name) is not None:
            raise ConfigError(
                f"{name} is {reprlib.repr(settings[name])}; Bitune answers from its own mixed cache, so leave it out."
            )
    if arguments.get("use_cache") is False:
        raise ConfigError("use_cache is False; Bitune answers from its mixed cache, so leave it out.")
    return max(settings.get("num_beams") or 1, settings.get("num_return_sequences") or 1)
