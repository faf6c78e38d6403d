"""One base, every checkpoint loaded on it, and the variants they make: text in, plain values out."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from types import MappingProxyType

import numpy as np
import torch

from bitune.adapters.manager import AdapterManager
from bitune.base.loading import Base, load_base
from bitune.data.encoding import text_ids
from bitune.data.prompts import PromptTemplate
from bitune.errors import ConfigError, UnknownNameError
from bitune.files import parse_lines
from bitune.inference.entries import Entry, facts_of
from bitune.inference.request import NO_WHAT_IFS, Request, prepare, ratios_of
from bitune.inference.sampling import GenerationSettings
from bitune.inference.session import Session
from bitune.inference.streaming import session_of
from bitune.model.bitune_model import BituneModel
from bitune.model.decoding import read_variants
from bitune.model.likelihoods import likelihoods
from bitune.model.limits import check_given_answer
from bitune.model.maps import attention_maps, moved_cache
from bitune.schema.conversation import RECOMPUTE, Turn
from bitune.schema.names import BASE_NAME, default_name
from bitune.schema.results import AttentionMaps, BaseFacts, CheckpointFacts
from bitune.schema.variants import BASE, MixingRatios, Variant, WhatIf


class Engine:
    """Loads checkpoints on one base and runs their variants in one batch. Any number of threads may use it at once.

    Args:
        base: What `load_base` returns, or takes.
    """

    def __init__(self, base: Base | str | os.PathLike):
        self.base = base if isinstance(base, Base) else load_base(base)
        if self.base.tokenizer is None:
            raise ConfigError(f"The base {self.base.id!r} has no tokenizer, so it reads no text; give a folder that has one.")
        self.manager = AdapterManager.of(self.base.model)
        self.manager.keep_packed(to_int8=self.base.dtype == "int8")
        self._entries: dict[str, Entry] = {BASE_NAME: Entry(BASE.with_mixing(None))}  # replaced, never changed in place
        self._lock = threading.Lock()

    @property
    def variants(self) -> Mapping[str, Variant]:
        """Name -> variant, as it is now; "base" is always there. Read-only: see `add_checkpoint` and `add_variant`."""
        return MappingProxyType({name: entry.variant for name, entry in self._entries.items()})

    @property
    def checkpoints(self) -> Mapping[str, CheckpointFacts]:
        """Name -> what the checkpoint says of itself, as it is now. Read-only."""
        return MappingProxyType({name: entry.facts for name, entry in self._entries.items() if entry.facts is not None})

    @property
    def places(self) -> Mapping[str, int]:
        """Name -> a number that no other variant has, for a colour, say; it stays while others come and go. That of "base" is 0."""
        return MappingProxyType({name: entry.place for name, entry in self._entries.items()})

    @property
    def base_facts(self) -> BaseFacts:
        """What is loaded."""
        model = self.base.model
        return BaseFacts(
            name=self.base.id,
            parameters=self.manager.base_parameters,
            layers=self.manager.layout.layers,
            device=str(model.device),
            dtype=self.base.dtype,
            context=self.manager.layout.context,
            has_chat_template=bool(self.base.tokenizer.chat_template),
            heads=self.manager.layout.heads,
        )

    def add_checkpoint(
        self, source: str | os.PathLike, name: str | None = None, *, allow_other_base: bool = False
    ) -> CheckpointFacts:
        """Load a checkpoint beside the others; requests that run meanwhile go on.

        Args:
            source: A folder or a Hub id.
            name: What its variant is called; by default the last part of the source, or all of it where another's ends alike.
            allow_other_base: Load it although its base is another than it was trained on.

        Raises:
            CheckpointError: It cannot be read or does not fit; WrongBaseError for another base. Nothing is loaded then.
            ConfigError: The name is taken.
        """
        name = name or self._name_of(source)
        self._check_free(name)
        model = BituneModel.from_pretrained(source, self.base, trainable=False, allow_other_base=allow_other_base)
        try:
            facts = facts_of(name, source, model)
            self._register(name, Entry(model.variant, PromptTemplate(facts.template), model, facts))
        except BaseException:
            model.release()
            raise
        return facts

    def add_variant(self, name: str, variant: Variant) -> None:
        """Run a variant of one's own like the others, over adapters that are loaded. ConfigError if the name is taken."""
        with self.manager.hold(variant.adapters):
            self._register(name, Entry(variant))

    def remove_checkpoint(self, name: str) -> None:
        """Take a checkpoint and its variant away. New requests do not find it any more; those that run with it are waited for.

        Raises:
            UnknownNameError: There is no such checkpoint.
        """
        with self._lock:
            if name not in self.checkpoints:
                raise UnknownNameError("checkpoint", name, self.checkpoints)
            entry = self._entries[name]
            self._entries = {other: kept for other, kept in self._entries.items() if other != name}
        try:
            entry.model.release()
        except BaseException:  # it could not wait: the checkpoint is still there
            self._register(name, entry)
            raise

    def remove_variant(self, name: str) -> None:
        """Take away what `add_variant` added; UnknownNameError if it is not there."""
        with self._lock:
            added = [other for other, entry in self._entries.items() if entry.model is None and other != BASE_NAME]
            if name not in added:
                raise UnknownNameError("variant of your own", name, added)
            self._entries = {other: kept for other, kept in self._entries.items() if other != name}

    def _register(self, name: str, entry: Entry) -> None:
        with self._lock:
            self._check_free(name)  # another thread may have taken it meanwhile
            taken = set(self.places.values())
            free = next(place for place in count() if place not in taken)
            self._entries = {**self._entries, name: replace(entry, place=free)}

    def _check_free(self, name: str) -> None:
        if name in self._entries:
            raise ConfigError(f"A variant called {name!r} is already there; give this one another name.")

    def _name_of(self, source: str | os.PathLike) -> str:
        return default_name(source, {name: entry.facts and entry.facts.source for name, entry in self._entries.items()})

    def mixing(self, name: str) -> MixingRatios:
        """The ratios of a variant; UnknownNameError, or ConfigError for one that mixes nothing."""
        return ratios_of(name, self.variants)

    def training_log(self, name: str) -> list[dict]:
        """The entries of a checkpoint's training_log.jsonl, empty if it came without one; DataError for a line that is not JSON."""
        entry = self._entries.get(name)  # looked up once: another thread may remove it
        if entry is None or entry.model is None:
            raise UnknownNameError("checkpoint", name, self.checkpoints)
        return parse_lines(entry.model.log or "", f"the training log of {name!r}")

    def stream(
        self,
        prompt: str,
        variants: Sequence[str],
        *,
        template: str = "own",
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
        history: Sequence[Turn] = (),
        earlier: str = RECOMPUTE,
    ) -> Session:
        """Answer one prompt with several variants at once, in step.

        Args:
            prompt: What a person wrote.
            variants: Names of the variants that answer.
            template: `own` (each checkpoint's own; the base reads with that of the first checkpoint that is loaded, whichever are asked
                beside it), `chat` (the base's chat template) or `none`.
            max_new_tokens: Most tokens of each answer.
            temperature: 0 is greedy; above 0 all variants see the same random draws.
            top_p, seed: Of these draws.
            stop: Strings that end an answer.
            what_ifs: More variants of this request alone, by name: a checkpoint's passes with other ratios, which share its adapters
                and prompt passes.
            history: What was asked and answered before, where `prompt` goes on with a conversation; each variant reads its own answers.
            earlier: How it is read again: `recompute` (everything together is one prompt) or `alternating` (each question on top of
                the mixed cache of what was before, each answer causally; see model.conversation). The paper tests neither.

        Returns:
            An iterator of what each variant has answered so far, at most 20 times a second and at least twice; closing it cancels.

        Raises:
            PromptError, ConfigError, UnknownNameError: Before anything runs.
        """
        settings = GenerationSettings(max_new_tokens, temperature, top_p, seed, stop)
        return session_of(self, self.request(prompt, variants, template, what_ifs, history, earlier), settings)

    def attention(
        self,
        prompt: str,
        variant: str,
        layers: Sequence[int] = (),
        *,
        template: str = "own",
        answer: str = "",
        what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    ) -> AttentionMaps:
        """Attention maps of `layers` and summaries of all layers, of the very passes that make this variant's cache.

        Args:
            answer: A text whose tokens become rows too.

        Raises:
            PromptError, ConfigError, UnknownNameError: As in `stream`; ConfigError also for a layer that is not there.
        """
        request = self.request(prompt, [variant], template, what_ifs)
        ids, tokenizer = request.ids[variant], self.base.tokenizer
        (answer_ids,) = text_ids([answer], tokenizer)
        check_given_answer(self.base.model, self.manager.layout, [ids], answer_ids)
        with self.holding(request):
            maps = attention_maps(self.manager, request.variants[variant], ids, answer_ids, layers)
        texts = tuple(tokenizer.decode([token]) for token in (*ids, *answer_ids))
        return replace(maps, tokens=texts, prompt_tokens=len(ids))

    def moved(self, prompt: str, variant: str, *, template: str = "own") -> list[np.ndarray]:
        """`moved_keys` and `moved_values` of `attention`, without its maps; raises as `stream`."""
        request = self.request(prompt, [variant], template)
        with self.holding(request):
            return moved_cache(self.manager, request.variants[variant], request.ids[variant])

    def log_probabilities(
        self,
        prompt: str,
        variants: Sequence[str],
        answer: Sequence[int],
        *,
        template: str = "own",
        what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
    ) -> dict[str, float]:
        """The log-probability that each variant gives to one answer: natural logarithm, summed over its tokens.

        Args:
            answer: Token ids; without any the log-probability is 0.

        Raises:
            PromptError, ConfigError, UnknownNameError: As in `stream`.
        """
        request = self.request(prompt, variants, template, what_ifs)
        if not answer:
            return dict.fromkeys(request.variants, 0.0)
        check_given_answer(self.base.model, self.manager.layout, list(request.ids.values()), answer)
        rows = [(variant, index) for index, variant in enumerate(request.variants.values())]
        with self.holding(request), torch.no_grad(), self.manager.eval_turn():
            prompts = read_variants(self.manager, list(request.ids.values()), rows, remember=True)
            values = likelihoods(prompts, range(len(rows)), [answer] * len(rows))
        return {name: likelihood.sum for name, likelihood in zip(request.variants, values, strict=True)}

    def prompt_ids(
        self,
        prompt: str,
        variant: str,
        *,
        template: str = "own",
        what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
        history: Sequence[Turn] = (),
    ) -> tuple[int, ...]:
        """Token ids that `variant` alone reads for this prompt, behind the turns before it; takes and raises what `stream` does."""
        return self.request(prompt, [variant], template, what_ifs, history).ids[variant]

    @contextmanager
    def holding(self, request: Request) -> Iterator[None]:
        """Keep what a request runs; UnknownNameError for a variant that was removed since it was asked for."""
        adapters = {adapter for variant in request.variants.values() for adapter in variant.adapters}
        removed = sorted(adapters.difference(self.manager.names))
        if removed:
            gone = next(name for name, variant in request.variants.items() if removed[0] in variant.adapters)
            raise UnknownNameError("variant", gone, self.variants)
        with self.manager.hold(adapters):
            yield

    def request(
        self,
        prompt: str,
        variants: Sequence[str],
        template: str = "own",
        what_ifs: Mapping[str, WhatIf] = NO_WHAT_IFS,
        history: Sequence[Turn] = (),
        earlier: str = RECOMPUTE,
    ) -> Request:
        """What a question comes to, for whatever runs it in a turn and `holding` it; takes and raises what `stream` does."""
        entries = self._entries
        known = {name: entry.variant for name, entry in entries.items()}
        templates = {name: entry.template for name, entry in entries.items() if entry.template is not None}
        here = (known, templates, self.base.tokenizer, self.manager.layout.context)
        return prepare(prompt, variants, template, what_ifs, *here, history, earlier)
