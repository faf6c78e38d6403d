"""From what a person asks to what runs: which variants, the text each reads, its token ids. Knows tokenizers; knows no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

from bitune.data.conversation import TurnEnd, turn_ends
from bitune.data.prompts import PromptTemplate
from bitune.errors import ConfigError, UnknownNameError
from bitune.schema.config import CHAT
from bitune.schema.conversation import ALTERNATING, RECOMPUTE, Turn, check_earlier, turns_of
from bitune.schema.variants import MixingRatios, Variant, WhatIf

TEMPLATES = ("own", CHAT, "none")
NO_WHAT_IFS: Mapping[str, WhatIf] = MappingProxyType({})


@dataclass(frozen=True)
class Request:
    """A prompt ready to run, by name of each variant: the variant, the text it reads and its token ids.

    `ends`: where its turns end, if they are read one on top of the other; empty where all is read as one prompt.
    """

    variants: Mapping[str, Variant]
    texts: Mapping[str, str]
    ids: Mapping[str, tuple[int, ...]]
    ends: Mapping[str, tuple[TurnEnd, ...]]


def prepare(
    prompt: str,
    names: Sequence[str],
    template: str,
    what_ifs: Mapping[str, WhatIf],
    variants: Mapping[str, Variant],
    templates: Mapping[str, PromptTemplate],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    history: Sequence[Turn] = (),
    earlier: str = RECOMPUTE,
) -> Request:
    """Check a request and encode its prompt.

    Args:
        prompt, names, template, what_ifs, history, earlier: As in `Engine.stream`.
        variants: Those that are loaded.
        templates: Of the checkpoints among them, the first one also of variants that have none.
        context: The longest input in tokens.

    Raises:
        PromptError, ConfigError, UnknownNameError: In one sentence with the value, the cause and the remedy.
    """
    names = list(dict.fromkeys(names))
    if not names:
        raise ConfigError("No variant is chosen; choose at least one.")
    known = {**variants, **{name: _what_if(name, question, variants) for name, question in what_ifs.items()}}
    for name in names:
        if name not in known:
            raise UnknownNameError("variant", str(name), known)
    if template not in TEMPLATES:
        raise UnknownNameError("template", str(template), TEMPLATES)
    # A what-if reads what its checkpoint reads.
    readers = {name: what_ifs[name].of if name in what_ifs else name for name in names}
    chosen = _chosen_templates(list(readers.values()), template, templates, bool(tokenizer.chat_template))
    check_earlier(earlier)
    # What several variants were asked and said alike is encoded once.
    wanted = {name: (chosen[reader], turns_of(name, history)) for name, reader in readers.items()}
    encoded = {one: one[0].encode(prompt, tokenizer, context, one[1]) for one in set(wanted.values())}
    texts = {name: encoded[one][0] for name, one in wanted.items()}
    ids = {name: tuple(encoded[one][1]) for name, one in wanted.items()}
    ends = {}
    if history and earlier == ALTERNATING:
        found = {one: turn_ends(*one, *encoded[one], tokenizer) for one in encoded}
        ends = {name: found[one] for name, one in wanted.items()}
    return Request({name: known[name] for name in names}, texts, ids, ends)


def ratios_of(name: str, variants: Mapping[str, Variant]) -> MixingRatios:
    """The ratios of a variant; UnknownNameError, or ConfigError for one that mixes nothing."""
    if name not in variants:
        raise UnknownNameError("variant", name, variants)
    mixing = variants[name].mixing
    if mixing is None:
        raise ConfigError(f"{name!r} reads the prompt once and mixes nothing, so it has no mixing ratios.")
    return mixing


def _what_if(name: str, question: WhatIf, variants: Mapping[str, Variant]) -> Variant:
    if name in variants:
        raise ConfigError(f"A variant called {name!r} is already there; give the what-if another name.")
    learned = ratios_of(question.of, variants)
    if question.mixing.layers != learned.layers:
        raise ConfigError(
            f"A what-if of {question.of!r} needs {learned.layers} ratios, one a layer; got {question.mixing.layers}."
        )
    return variants[question.of].with_mixing(question.mixing)


def _chosen_templates(
    names: Sequence[str], template: str, templates: Mapping[str, PromptTemplate], has_chat_template: bool
) -> dict[str, PromptTemplate]:
    """The template of each variant in `names`. What a variant without one of its own reads, above all the base, depends on the checkpoints
    that are loaded and not on those that are asked beside it: so it reads the same in every request.

    `templates`: of all checkpoints, in the order in which they were loaded.
    """
    if template == "none":
        return dict.fromkeys(names, PromptTemplate(None))
    if template == CHAT:
        return dict.fromkeys(names, PromptTemplate(CHAT))
    shared = next(iter(templates.values()), PromptTemplate(CHAT if has_chat_template else None))
    return {name: templates.get(name, shared) for name in names}
