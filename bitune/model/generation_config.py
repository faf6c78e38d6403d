"""Settings of transformers' `generate`: which of them a base's generation_config.json may choose, and which a person may give.

transformers fills whatever is left unset in a call with the base's generation_config.json. What of that file is taken is decided here:

- in a comparison or a measurement (engine, evaluation, harness): the token ids that begin, end and pad a text, nothing else;
- in `BituneModel.generate`, which answers as transformers' own `generate` does: also what chooses the next token, how far an answer
  goes and how it is searched for, `_FROM_THE_BASE` below;
- nowhere: what would read the prompt past the mixed cache, or change the form of the result.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitune.errors import ConfigError, reason, shown
from bitune.model.limits import check_ids
from bitune.modeling.interface import vocabulary_size

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")

_FLAG, _WHOLE, _NUMBER, _LIST = (bool,), (int,), (int, float), (list, tuple)
_FROM_THE_BASE: Mapping[str, tuple[type, ...]] = {
    # how the next token is chosen
    "do_sample": _FLAG,
    "temperature": _NUMBER,
    "top_k": _WHOLE,
    "top_p": _NUMBER,
    "min_p": _NUMBER,
    "top_h": _NUMBER,
    "typical_p": _NUMBER,
    "epsilon_cutoff": _NUMBER,
    "eta_cutoff": _NUMBER,
    "repetition_penalty": _NUMBER,
    "encoder_repetition_penalty": _NUMBER,
    "no_repeat_ngram_size": _WHOLE,
    "encoder_no_repeat_ngram_size": _WHOLE,
    "bad_words_ids": _LIST,
    "suppress_tokens": _LIST,
    "begin_suppress_tokens": _LIST,
    "sequence_bias": (dict, list),
    "forced_bos_token_id": _WHOLE,
    "forced_eos_token_id": (int, list),
    "exponential_decay_length_penalty": _LIST,
    "renormalize_logits": _FLAG,
    "remove_invalid_values": _FLAG,
    "watermarking_config": (object,),
    # how far an answer goes
    "max_length": _WHOLE,
    "max_new_tokens": _WHOLE,
    "min_length": _WHOLE,
    "min_new_tokens": _WHOLE,
    "max_time": _NUMBER,
    "stop_strings": (str, list),
    # how it is searched for
    "num_beams": _WHOLE,
    "num_return_sequences": _WHOLE,
    "early_stopping": (bool, str),
    "length_penalty": _NUMBER,
}
"""What `BituneModel.generate` takes from a base's generation_config.json, and the types that its values may have."""

# Ways of generating that read the prompt, or a second one, themselves, or bring a cache of their own -> the value that changes nothing.
_PAST_THE_CACHE: Mapping[str, object] = {
    "assistant_early_exit": None,
    "assistant_model": None,
    "assistant_tokenizer": None,
    "cache": None,
    "cache_config": None,
    "cache_implementation": None,
    "cache_params": None,
    "continuous_batching_config": None,
    "custom_generate": None,
    "guidance_scale": 1,
    "is_assistant": False,
    "negative_prompt_attention_mask": None,
    "negative_prompt_ids": None,
    "past_key_values": None,
    "prefill_chunk_size": None,
    "prompt_lookup_num_tokens": None,
    "token_healing": False,
    "use_cache": True,
    "use_mtp": False,
}
# Ways of generating that transformers fetches as Python code from the Hub -> likewise.
_FOREIGN_CODE: Mapping[str, object] = {
    "constraints": None,
    "dola_layers": None,
    "force_words_ids": None,
    "num_beam_groups": 1,
    "penalty_alpha": 0,
    "trust_remote_code": False,
}
_REFUSED = (
    (_PAST_THE_CACHE, "Bitune answers from its own mixed cache"),
    (_FOREIGN_CODE, "transformers fetches Python code for it, and Bitune runs none"),
)
_SET_BY_BITUNE = ("attention_mask", "input_ids", "inputs", "inputs_embeds", "position_ids", "token_type_ids")
# Not given to the call of `_resolved_config`, which writes no token: it would put the prompt into the streamer.
_FOR_TOKENS = ("stop_strings", "streamer", "tokenizer")


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    """Tokens that end an answer: the model's own, then the tokenizer's, which training puts behind every answer.

    Raises:
        ConfigError: The base's generation_config.json names what is no token of it.
    """
    _check_tokens(model, ("eos_token_id",))
    trained = None if tokenizer is None else tokenizer.eos_token_id
    is_token = trained is not None and trained < vocabulary_size(model)  # a tokenizer may know more than its model
    return tuple(dict.fromkeys([*_as_list(model.generation_config.eos_token_id), *([trained] if is_token else [])]))


def before_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens of an answer up to and without the first that ends it: what follows is padding."""
    return tokens[: next((index for index, token in enumerate(tokens) if token in ends), len(tokens))]


def eval_generation_config(ends: Sequence[int], **settings: object) -> GenerationConfig:
    """Settings for measuring: greedy unless told otherwise, ended and padded by `ends`, with nothing else that the base comes with."""
    pad = ends[0] if ends else 0
    return GenerationConfig(**{"do_sample": False, **settings}, eos_token_id=list(ends) or None, pad_token_id=pad)


@contextmanager
def base_defaults(model: PreTrainedModel, taken: Mapping[str, object]) -> Iterator[None]:
    """Until the end of the block, `generate` falls back on `taken` and the token ids alone of the base's generation_config.json.

    To be used in a turn: the model is everybody's. Whoever reads its end tokens meanwhile finds them as they are.
    """
    before = model.generation_config
    defaults = GenerationConfig()
    for name, value in {**{name: vars(before)[name] for name in TOKENS}, **taken}.items():
        setattr(defaults, name, value)
    model.generation_config = defaults
    try:
        yield
    finally:
        model.generation_config = before


@dataclass(frozen=True)
class ResolvedCall:
    """The settings of a call of `BituneModel.generate`, after the base's own have filled what it leaves unset.

    Attributes:
        defaults: What is taken from the base's generation_config.json, besides the token ids.
        copies: How many rows are made of each prompt: beams, or returned sequences.
        most_tokens: Of prompt and answer together, padding included.
    """

    defaults: Mapping[str, object]
    copies: int
    most_tokens: int


def resolve_call(model: PreTrainedModel, ids: Tensor, mask: Tensor, arguments: Mapping[str, object]) -> ResolvedCall:
    """Check the arguments of `generate` for the prompts `ids`, `mask` [batch, P], and fill in what the base chooses, before anything runs.

    Raises:
        ConfigError: An argument would read the prompt anew, past the mixed cache, and so answer as if nothing were mixed; or
            transformers refuses one; or the base's generation_config.json holds what makes no sense.
    """
    given = _given(arguments)
    _check_given(given)
    _check_tokens(model, [name for name in TOKENS if name not in given])
    unset = [name for name in _FROM_THE_BASE if name not in given and (name != "stop_strings" or "tokenizer" in given)]
    configured = vars(model.generation_config)
    taken = {name: configured[name] for name in unset if configured[name] is not None}
    for name, value in taken.items():
        if not isinstance(value, _FROM_THE_BASE[name]) or (isinstance(value, bool) and bool not in _FROM_THE_BASE[name]):
            raise ConfigError(
                f"The base's generation_config.json has {name} {shown(value)}, which transformers cannot use; correct it "
                f"there, or give {name} yourself."
            )
    settings = {**taken, **given}
    _check_values(settings)
    for name, neutral in (("encoder_repetition_penalty", 1), ("encoder_no_repeat_ngram_size", 0)):
        if settings.get(name, neutral) != neutral:
            check_ids(model, f"With {name}, which reads padding too, prompt_ids", ids)
    config = _resolved_config(model, ids, mask, arguments, taken)
    _check_tokens_of(config, model)
    if given.get("streamer") is not None and config.num_beams > 1:
        raise ConfigError(
            f"A streamer is given and num_beams is {config.num_beams}; beams end together, so leave one of them out."
        )
    return ResolvedCall(taken, max(config.num_beams, config.num_return_sequences), config.max_length)


def _given(arguments: Mapping[str, object]) -> dict[str, object]:
    """What a person set, as arguments or in a generation_config."""
    config = arguments.get("generation_config")
    if config is not None and not isinstance(config, GenerationConfig):
        raise ConfigError(f"generation_config is {shown(config)}; it must be a transformers.GenerationConfig.")
    settings = {**({} if config is None else vars(config)), **arguments}
    return {name: value for name, value in settings.items() if value is not None}


def _check_given(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        for unchanged, cause in _REFUSED:
            if name in unchanged and (unchanged[name] is None or value != unchanged[name]):
                raise ConfigError(f"{name} is {shown(value)}; {cause}, so leave it out.")
        if name in _SET_BY_BITUNE:
            raise ConfigError(f"{name} is given; Bitune sets it from prompt_ids and prompt_mask, so give these in its place.")
    if "stop_strings" in given and "tokenizer" not in given:
        raise ConfigError(
            f"stop_strings is {shown(given['stop_strings'])}; transformers finds them by a tokenizer, so give tokenizer too."
        )


def _check_values(settings: Mapping[str, object]) -> None:
    """ConfigError for what transformers does not check itself, and fails with in the middle of its `generate`."""
    for name in ("num_beams", "num_return_sequences"):
        value = settings.get(name, 1)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is {shown(value)}; give a whole number of at least 1.")
    decay = settings.get("exponential_decay_length_penalty", (0, 1.0))
    if not isinstance(decay, list | tuple) or len(decay) < 2 or not all(isinstance(number, int | float) for number in decay[:2]):
        raise ConfigError(f"exponential_decay_length_penalty is {shown(decay)}; give two numbers: first token, factor.")
    for name, types in _FROM_THE_BASE.items():
        if isinstance(settings.get(name), str) and str not in types:
            raise ConfigError(
                f"{name} is the text {shown(settings[name])}, which transformers cannot use; give it without quotes."
            )


def _check_tokens_of(config: GenerationConfig, model: PreTrainedModel) -> None:
    """ConfigError for a token that the base has not, in a setting that transformers looks up by index."""
    biased = config.sequence_bias or ()
    sequences = {
        "bad_words_ids": config.bad_words_ids or (),
        "sequence_bias": biased if isinstance(biased, dict) else [sequence for sequence, _ in biased],
        "forced_bos_token_id": [_as_list(config.forced_bos_token_id)],
        "forced_eos_token_id": [_as_list(config.forced_eos_token_id)],
    }
    for name, groups in sequences.items():
        check_ids(model, name, [token for sequence in groups for token in sequence])


def _resolved_config(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, arguments: Mapping[str, object], taken: Mapping[str, object]
) -> GenerationConfig:
    """The settings that transformers' `generate` would run with, or what it says against them; no token is read."""

    def stop_here(model, input_ids, generation_config, **_) -> GenerationConfig:
        return generation_config

    kept = {name: value for name, value in arguments.items() if name not in _FOR_TOKENS}
    if (config := copy.deepcopy(arguments.get("generation_config"))) is not None:
        config.stop_strings = None
        kept["generation_config"] = config
    try:
        with base_defaults(model, {name: value for name, value in taken.items() if name not in _FOR_TOKENS}):
            return model.generate(ids, attention_mask=mask, custom_generate=stop_here, **kept)
    except ValueError as error:
        raise ConfigError(
            f"transformers' generate refuses these settings ({reason(error)}); give others, or correct those of the base's "
            "generation_config.json."
        ) from error


def _check_tokens(model: PreTrainedModel, names: Sequence[str]) -> None:
    """ConfigError for what the base's generation_config.json calls a token and is none."""
    vocabulary = vocabulary_size(model)
    for name in names:
        value = vars(model.generation_config)[name]
        tokens = _as_list(value) if name == "eos_token_id" else [] if value is None else [value]
        if value == [] or not all(type(token) is int and 0 <= token < vocabulary for token in tokens):
            raise ConfigError(
                f"The base's generation_config.json has {name} {shown(value)}, which is no token: this base's are 0 to "
                f"{vocabulary - 1}; correct it there."
            )


def _as_list(tokens: int | Sequence[int] | None) -> list[int]:
    return [] if tokens is None else list(tokens) if isinstance(tokens, list | tuple) else [tokens]
