"""One base, every adapter loaded on it, and the variants they make: text in, plain values out."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig

from bitune.adapters import AdapterHost
from bitune.base import Base, load_base
from bitune.checkpoint import locate, read
from bitune.errors import ConfigError, UnknownNameError
from bitune.generation import Answer, Cancelled, GenerationSettings, RowStreamer, Worker, sampling
from bitune.mixing import take_rows
from bitune.model import BituneModel
from bitune.peft_kinds import kind_of
from bitune.prefill import Row, prefill
from bitune.prompts import CHAT, PromptTemplate, pad_left
from bitune.results import BaseFacts, CheckpointFacts, Update
from bitune.variants import BASE, CAUSAL, Variant, name_of

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
        self.host = AdapterHost.of(self.base.model)
        self.variants: dict[str, Variant] = {BASE_NAME: BASE.with_mixing(None)}
        self.checkpoints: dict[str, CheckpointFacts] = {}
        self._models: dict[str, BituneModel] = {}
        self._templates: dict[str, PromptTemplate] = {}

    @property
    def base_facts(self) -> BaseFacts:
        """What is loaded."""
        model = self.base.model
        adapters = {id(p) for name, p in model.named_parameters() if any(f".{a}." in f"{name}." for a in self.host.names)}
        return BaseFacts(
            name=self.base.id,
            parameters=sum(p.numel() for p in model.parameters() if id(p) not in adapters),
            layers=self.host.layout.layers,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            context=self._context,
            has_chat_template=bool(self.base.tokenizer.chat_template),
        )

    @property
    def _context(self) -> int:
        return self.base.model.config.get_text_config(decoder=True).max_position_embeddings

    def add_checkpoint(
        self, source: str | os.PathLike, name: str | None = None, *, allow_other_base: bool = False
    ) -> CheckpointFacts:
        """Load a checkpoint (folder or Hub id) beside the others; it becomes a variant called `name`, by default its folder's name.

        Raises CheckpointError or WrongBaseError, with nothing loaded, and ConfigError if the name is taken.
        """
        name = name or Path(str(source).partition("@")[0]).resolve().name
        if name in self.variants:
            raise ConfigError(f"A variant called {name!r} is already there; give this checkpoint another name.")
        checkpoint = read(locate(source))
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
    ) -> Iterator[Update]:
        """Answer one prompt with several variants at once, in step; yields what each has said so far, at most 20 times a second.

        `template`: `own` (each checkpoint's own; a variant without one reads the prompt of the first that has one, so that
        all read the same text), `chat` (the base's chat template) or `none`. With temperature above 0 all variants see the
        same random draws. Closing the iterator cancels. Raises PromptError, ConfigError or UnknownNameError before anything runs.
        """
        settings = GenerationSettings(max_new_tokens, temperature, top_p, seed, stop if isinstance(stop, str) else tuple(stop))
        request = self._request(prompt, variants, template, settings)
        return self._updates(request)

    def _request(self, prompt: str, names: Sequence[str], template: str, settings: GenerationSettings) -> _Request:
        names = list(dict.fromkeys(names))
        if not names:
            raise ConfigError("No variant is chosen; choose at least one.")
        for name in names:
            if name not in self.variants:
                raise UnknownNameError("variant", str(name), self.variants)
        if template not in TEMPLATES:
            raise UnknownNameError("template", str(template), TEMPLATES)
        chosen = self._chosen_templates(names, template)
        encoded = {t: t.encode(prompt, self.base.tokenizer, self._context) for t in set(chosen.values())}
        return _Request(
            {name: self.variants[name] for name in names},
            {name: encoded[chosen[name]][0] for name in names},
            {name: tuple(encoded[chosen[name]][1]) for name in names},
            settings,
        )

    def _chosen_templates(self, names: Sequence[str], template: str) -> dict[str, PromptTemplate]:
        if template == "none":
            return dict.fromkeys(names, PromptTemplate(None))
        if template == CHAT:
            return dict.fromkeys(names, PromptTemplate(CHAT))
        own = [self._templates[name] for name in names if name in self._templates]
        chat = PromptTemplate(CHAT if self.base.tokenizer.chat_template else None)
        shared = own[0] if own else chat
        return {name: self._templates.get(name, shared) for name in names}

    def _updates(self, request: _Request) -> Iterator[Update]:
        ends = _end_tokens(self.base.model.generation_config)
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
        cache = prefill(self.host, ids, mask, [Row.of(v, place) for v, place in zip(variants, places, strict=True)])

        def decode(rows: list[int]) -> None:
            own = cache if len(rows) == len(variants) else take_rows(cache, torch.tensor(rows))
            streamer = RowStreamer(rows, lambda r, tokens: receive((r, tokens, time.monotonic() - started)))
            here = [places[row] for row in rows]
            self._generate(ids[here], mask[here], own, request.settings, limit, streamer, cancel)

        self.host.run([variant.answer_adapter for variant in variants], decode)

    def _generate(self, ids, mask, cache, settings: GenerationSettings, limit: int, streamer: RowStreamer, cancel) -> None:
        config = GenerationConfig(
            max_new_tokens=limit, do_sample=False, num_beams=1, pad_token_id=self.base.tokenizer.pad_token_id, **_stop(settings)
        )
        self.base.model.generate(
            ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=config,
            logits_processor=sampling(settings),
            stopping_criteria=[Cancelled(cancel)],
            streamer=streamer,
            tokenizer=self.base.tokenizer if settings.stop else None,
        )


def _stop(settings: GenerationSettings) -> dict[str, list[str]]:
    return {"stop_strings": list(settings.stop)} if settings.stop else {}


def _end_tokens(config: GenerationConfig) -> frozenset[int]:
    ends = config.eos_token_id
    return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)


def _update(request: _Request, answers: Sequence[Answer], *, done: bool) -> Update:
    completions = {name: answer.snapshot() for name, answer in zip(request.variants, answers, strict=True)}
    lengths = {name: len(ids) for name, ids in request.ids.items()}
    return Update(completions, request.texts, lengths, done)
