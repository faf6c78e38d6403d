"""One base, every adapter loaded on it, and the variants they make: text in, plain values out."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from transformers import GenerationConfig

from bitune.adapters.kinds import kind_of
from bitune.adapters.manager import AdapterManager
from bitune.base.loading import Base, load_base
from bitune.checkpoints.folder import read, resolve_checkpoint
from bitune.data.batches import pad_left
from bitune.data.prompts import CHAT, PromptTemplate
from bitune.errors import ConfigError, PromptError, UnknownNameError
from bitune.inference.generation import (
    Answer,
    Cancelled,
    GenerationSettings,
    RowStreamer,
    Worker,
    end_tokens,
    interruptible,
    sampling,
)
from bitune.model.bitune_model import BituneModel
from bitune.model.maps import attention_maps
from bitune.model.prefill import Row, prefill
from bitune.modeling.cache import take_rows
from bitune.modeling.interface import cache_input
from bitune.schema.results import AttentionMaps, BaseFacts, CheckpointFacts, Update
from bitune.schema.variants import BASE, CAUSAL, MixingRatios, Variant, WhatIf, name_of

BASE_NAME = "base"
TEMPLATES = ("own", CHAT, "none")
SECONDS_BETWEEN_UPDATES = 0.05  # a page cannot show more, a queue can fill up


@dataclass(frozen=True)
class _Request:
    """A prompt ready to run: which variants, the text each reads, its token ids, and how to answer."""

    variants: dict[str, Variant]
    texts: dict[str, str]
    ids: dict[str, tuple[int, ...]]
    settings: GenerationSettings


class Engine:
    """Loads checkpoints on one base and runs their variants in one batch.

    `variants`: name -> Variant, "base" always there; put one of your own in it (a what-if) and it runs like the others.
    `checkpoints`: name -> what the checkpoint says of itself.
    """

    def __init__(self, base: Base | str | os.PathLike):
        self.base = base if isinstance(base, Base) else load_base(base)
        if self.base.tokenizer is None:
            raise ConfigError(f"The base {self.base.id!r} has no tokenizer, so it reads no text; give a folder that has one.")
        self.manager = AdapterManager.of(self.base.model)
        self.variants: dict[str, Variant] = {BASE_NAME: BASE.with_mixing(None)}
        self.checkpoints: dict[str, CheckpointFacts] = {}
        self._models: dict[str, BituneModel] = {}
        self._templates: dict[str, PromptTemplate] = {}

    @property
    def base_facts(self) -> BaseFacts:
        """What is loaded."""
        model = self.base.model
        adapters = {id(p) for name, p in model.named_parameters() if any(f".{a}." in f"{name}." for a in self.manager.names)}
        return BaseFacts(
            name=self.base.id,
            parameters=sum(p.numel() for p in model.parameters() if id(p) not in adapters),
            layers=self.manager.layout.layers,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            context=self._context,
            has_chat_template=bool(self.base.tokenizer.chat_template),
            heads=model.config.get_text_config(decoder=True).num_attention_heads,
        )

    @property
    def _context(self) -> int:
        return self.base.model.config.get_text_config(decoder=True).max_position_embeddings

    def add_checkpoint(
        self, source: str | os.PathLike, name: str | None = None, *, allow_other_base: bool = False
    ) -> CheckpointFacts:
        """Load a checkpoint (folder or Hub id) beside the others; it becomes a variant called `name`.

        The name is by default the last part of the folder or Hub id, or all of it where another's ends alike. Raises CheckpointError
        or WrongBaseError, with nothing loaded, and ConfigError if the name is taken.
        """
        name = name or self._name_of(source)
        if name in self.variants:
            raise ConfigError(f"A variant called {name!r} is already there; give this checkpoint another name.")
        checkpoint = read(resolve_checkpoint(source))
        model = BituneModel.from_checkpoint(checkpoint, self.base, trainable=False, allow_other_base=allow_other_base)
        config = model.bitune_config
        self._models[name] = model
        self._templates[name] = PromptTemplate(config.prompt_template)
        self.variants[name] = model.variant
        self.checkpoints[name] = CheckpointFacts(
            name=name,
            source=str(source),
            method=name_of(config.method) or "custom",
            peft_kind=kind_of(checkpoint.adapters.get(CAUSAL, next(iter(checkpoint.adapters.values()))).config),
            trainable_parameters=model.trainable_parameters(),
            template=config.prompt_template,
            training=config.training,
        )
        return self.checkpoints[name]

    def _name_of(self, source: str | os.PathLike) -> str:
        last = Path(str(source).partition("@")[0]).resolve().name
        others = [facts.source for facts in self.checkpoints.values()]
        return str(source) if last in self.variants and str(source) not in others else last

    def remove_checkpoint(self, name: str) -> None:
        """Take a checkpoint and its variant away; UnknownNameError if it is not there."""
        if name not in self._models:
            raise UnknownNameError("checkpoint", name, self._models)
        self._models.pop(name).release()
        del self.variants[name], self.checkpoints[name], self._templates[name]

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
        what_ifs: Mapping[str, WhatIf] = MappingProxyType({}),
    ) -> Iterator[Update]:
        """Answer one prompt with several variants at once, in step; yields what each has said so far, at most 20 times a second.

        `template`: `own` (each checkpoint's own; the base reads the prompt of the first checkpoint, so that all read the same
        text), `chat` (the base's chat template) or `none`. With temperature above 0 all variants see the same random draws.
        `what_ifs`: more variants of this request alone, by name: a checkpoint's passes with other ratios, which share its
        adapters and prompt passes. Closing the iterator cancels. Raises PromptError, ConfigError or UnknownNameError before
        anything runs.
        """
        settings = GenerationSettings(max_new_tokens, temperature, top_p, seed, stop if isinstance(stop, str) else tuple(stop))
        return self._updates(self._request(prompt, variants, template, settings, what_ifs))

    def attention(
        self,
        prompt: str,
        variant: str,
        layers: Sequence[int] = (),
        *,
        template: str = "own",
        answer: str = "",
        what_ifs: Mapping[str, WhatIf] = MappingProxyType({}),
    ) -> AttentionMaps:
        """Attention maps of `layers` and summaries of all layers, of the very passes that make this variant's cache.

        `answer`: a text whose tokens become rows too. Raises what `stream` raises, and ConfigError for a layer that is not there.
        """
        request = self._request(prompt, [variant], template, GenerationSettings(), what_ifs)
        ids, tokenizer = request.ids[variant], self.base.tokenizer
        answer_ids = tokenizer(answer, add_special_tokens=False).input_ids
        if len(ids) + len(answer_ids) > self._context:
            raise PromptError(
                f"Prompt and answer have {len(ids) + len(answer_ids):,} tokens and the model reads {self._context:,}."
            )
        maps = attention_maps(self.manager, request.variants[variant], ids, answer_ids, layers)
        texts = tuple(tokenizer.decode([token]) for token in (*ids, *answer_ids))
        return replace(maps, tokens=texts, prompt_tokens=len(ids))

    def _request(
        self, prompt: str, names: Sequence[str], template: str, settings: GenerationSettings, what_ifs: Mapping[str, WhatIf]
    ) -> _Request:
        names = list(dict.fromkeys(names))
        if not names:
            raise ConfigError("No variant is chosen; choose at least one.")
        known = {**self.variants, **{name: self._what_if(name, question) for name, question in what_ifs.items()}}
        for name in names:
            if name not in known:
                raise UnknownNameError("variant", str(name), known)
        if template not in TEMPLATES:
            raise UnknownNameError("template", str(template), TEMPLATES)
        sources = {name: what_ifs[name].of if name in what_ifs else name for name in names}
        chosen = self._chosen_templates(list(sources.values()), template)
        encoded = {t: t.encode(prompt, self.base.tokenizer, self._context) for t in set(chosen.values())}
        return _Request(
            {name: known[name] for name in names},
            {name: encoded[chosen[sources[name]]][0] for name in names},
            {name: tuple(encoded[chosen[sources[name]]][1]) for name in names},
            settings,
        )

    def _what_if(self, name: str, question: WhatIf) -> Variant:
        if name in self.variants:
            raise ConfigError(f"A variant called {name!r} is already there; give the what-if another name.")
        learned = self.mixing(question.of)
        if question.mixing.layers != learned.layers:
            raise ConfigError(
                f"A what-if of {question.of!r} needs {learned.layers} ratios, one a layer; got {question.mixing.layers}."
            )
        return self.variants[question.of].with_mixing(question.mixing)

    def _chosen_templates(self, names: Sequence[str], template: str) -> dict[str, PromptTemplate]:
        if template == "none":
            return dict.fromkeys(names, PromptTemplate(None))
        if template == CHAT:
            return dict.fromkeys(names, PromptTemplate(CHAT))
        own = [self._templates[name] for name in names if name in self._templates]
        chat = PromptTemplate(CHAT if self.base.tokenizer.chat_template else None)
        shared = own[0] if own else chat
        return {name: self._templates.get(name, shared) for name in names}

    def mixing(self, name: str) -> MixingRatios:
        """The ratios of a variant; UnknownNameError, or ConfigError for one that mixes nothing."""
        if name not in self.variants:
            raise UnknownNameError("variant", name, self.variants)
        if self.variants[name].mixing is None:
            raise ConfigError(f"{name!r} reads the prompt once and mixes nothing, so it has no mixing ratios.")
        return self.variants[name].mixing

    def prompt_ids(self, prompt: str, variant: str, *, template: str = "own") -> tuple[int, ...]:
        """Token ids that `variant` alone reads for this prompt; raises what `stream` raises."""
        return self._request(prompt, [variant], template, GenerationSettings(), {}).ids[variant]

    def training_log(self, name: str) -> list[dict]:
        """The entries of a checkpoint's training_log.jsonl; empty if it came without one."""
        if name not in self._models:
            raise UnknownNameError("checkpoint", name, self._models)
        return [json.loads(line) for line in (self._models[name].log or "").splitlines()]

    def _updates(self, request: _Request) -> Iterator[Update]:
        ends = frozenset(end_tokens(self.base.model, self.base.tokenizer))
        answers = [Answer(name, self.base.tokenizer, request.settings, ends) for name in request.variants]
        limit = self._limit(request)
        worker = Worker(lambda receive, cancel: self._work(request, limit, receive, cancel))
        shown = time.monotonic()
        try:
            while (value := worker.next_value()) is not None:
                rows, tokens, seconds = value
                for row, token in zip(rows, tokens, strict=True):
                    answers[row].add(token, seconds)
                if time.monotonic() - shown >= SECONDS_BETWEEN_UPDATES:
                    yield _update(request, answers, done=False)
                    shown = time.monotonic()
        finally:
            worker.close()
        for answer in answers:
            answer.close(limit, cancelled=False)
        yield _update(request, answers, done=True)

    def _limit(self, request: _Request) -> int:
        """New tokens that fit behind the longest prompt."""
        return min(request.settings.max_new_tokens, self._context - max(map(len, request.ids.values())))

    @torch.no_grad()
    def _work(self, request: _Request, limit: int, receive, cancel) -> None:
        started = time.monotonic()
        prompts = list(dict.fromkeys(request.ids.values()))
        ids, mask = pad_left(prompts, self.base.tokenizer.pad_token_id or 0, self.base.model.device)
        places = [prompts.index(request.ids[name]) for name in request.variants]
        variants = list(request.variants.values())
        rows = [Row.of(variant, place) for variant, place in zip(variants, places, strict=True)]
        with interruptible(self.base.model, cancel):
            cache = prefill(self.manager, ids, mask, rows)

        def decode(rows: list[int]) -> None:
            own = cache if len(rows) == len(variants) else take_rows(cache, torch.tensor(rows))
            streamer = RowStreamer(rows, lambda r, tokens: receive((r, tokens, time.monotonic() - started)))
            here = [places[row] for row in rows]
            self._generate(ids[here], mask[here], own, request.settings, limit, streamer, cancel)

        self.manager.run([variant.answer_adapter for variant in variants], decode)

    def _generate(self, ids, mask, cache, settings: GenerationSettings, limit: int, streamer: RowStreamer, cancel) -> None:
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=list(end_tokens(self.base.model, self.base.tokenizer)) or None,
            pad_token_id=self.base.tokenizer.pad_token_id,
            **_stop(settings),
        )
        self.base.model.generate(
            ids,
            attention_mask=mask,
            **cache_input(cache),
            generation_config=config,
            logits_processor=sampling(settings),
            stopping_criteria=[Cancelled(cancel)],
            streamer=streamer,
            tokenizer=self.base.tokenizer if settings.stop else None,
        )


def _stop(settings: GenerationSettings) -> dict[str, list[str]]:
    return {"stop_strings": list(settings.stop)} if settings.stop else {}


def _update(request: _Request, answers: Sequence[Answer], *, done: bool) -> Update:
    completions = {name: answer.snapshot() for name, answer in zip(request.variants, answers, strict=True)}
    lengths = {name: len(ids) for name, ids in request.ids.items()}
    return Update(completions, request.texts, lengths, done)
