"""A checkpoint, or a base alone, as a model of lm-eval: a request's context is the prompt and its continuation the answer."""

import logging
import sys
from collections.abc import Sequence

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from bitune import distributed
from bitune.base.default import EMBEDDED
from bitune.base.loading import load_base
from bitune.checkpoints.folder import read, resolve_checkpoint
from bitune.data.chat import render_chat
from bitune.data.encoding import front_ids, prompt_ids, text_ids
from bitune.errors import ConfigError, DataError, PromptError, UnknownNameError, reason, shown
from bitune.evaluation.scores import Question, score
from bitune.inference.engine import Engine
from bitune.model.decoding import generate, read_variants
from bitune.model.generation_config import before_end, end_tokens, eval_generation_config
from bitune.model.identity import source_of
from bitune.model.limits import batches_by_length

ARGUMENTS = ("base", "batch_size", "device", "dtype", "max_length", "pretrained")
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # all mean the same to lm-eval
SETTINGS = ("do_sample", "max_gen_toks", "min_p", "temperature", "top_k", "top_p", "until")
_DEFAULT_DEVICE = "cuda:0"  # of lm-eval's command line without --device, also where there is no GPU, or one a process
_NO_CHAT = "leave out --apply_chat_template, or give a base whose tokenizer has one that works"
_MAX_CHOICES = 16  # scored after one pass over their context: a context that all documents share has thousands

log = logging.getLogger(__name__)


class BituneLM(TemplateLM):
    """A checkpoint, or the base alone, as lm_eval.api.model.TemplateLM wants it.

    `pretrained`: a checkpoint's folder or Hub id, Bitune or plain LoRA; nothing for the base alone. `base`: by default the one that
    the checkpoint names. `device`, `dtype` as in load_base. `batch_size`: contexts at a time, each with all its continuations.
    `max_length`: the longest input in tokens, by default the base's. Contexts are read as lm-eval writes them: a checkpoint's
    own template is left aside, as in `bitune evaluate`; `--apply_chat_template` takes the base's.

    Over several processes lm-eval sees one (rank 0 of 1): each is given all requests, runs its share, and has all results.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        base: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int | str = 8,
        max_length: int | str | None = None,
        **others: object,
    ):
        super().__init__()
        if others:
            raise UnknownNameError("model argument", min(others), ARGUMENTS)
        self.batch_size = _count("batch_size", batch_size)
        distributed.meet()
        if not base:
            base = source_of(read(resolve_checkpoint(pretrained)).config.base) if pretrained else EMBEDDED.name
        engine = Engine(load_base(base, device="auto" if device == _DEFAULT_DEVICE else device, dtype=dtype))
        if pretrained:
            engine.add_checkpoint(pretrained, name="checkpoint")
        *_, self._variant = engine.variants.values()
        self._manager, self._name, context = engine.manager, engine.base_facts.name, engine.base_facts.context
        self.tokenizer: PreTrainedTokenizerBase = engine.base.tokenizer
        self.max_length = context if max_length is None else _count("max_length", max_length)
        if self.max_length > context:
            raise ConfigError(f"max_length is {self.max_length}, and {self._name!r} reads {context} tokens; give less.")

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict, additional_config: dict | None = None) -> "BituneLM":
        """Model arguments win over the flags of lm-eval's command line, which always give a device and a batch size."""
        flags = {key: value for key, value in (additional_config or {}).items() if value is not None}
        return cls(**(flags | arg_dict))

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> "BituneLM":
        """Likewise of arguments as `name=value,name=value`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """For `--use_cache`. ConfigError over several processes: their caches could part, and with them the requests they share."""
        if distributed.count() > 1:
            raise ConfigError(f"{distributed.count()} processes cannot share --use_cache; leave it out, or start one process.")
        super().set_cache_hook(cache_hook)

    @property
    def eot_token_id(self) -> int | None:
        """The end token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: the BOS token, or the end token without one."""
        ids = [i for i in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id) if i is not None]
        if not ids:
            raise ConfigError(f"{self._name!r} has neither BOS nor end token to stand for an empty context; set its bos_token.")
        return ids[0]

    @property
    def tokenizer_name(self) -> str:
        """Names lm-eval's cache of chat prompts."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template that lm-eval records beside its results; ConfigError where there is none of that name."""
        try:
            return super().chat_template(chat_template)
        except ValueError as error:
            raise ConfigError(f"The base {self._name!r} has no such chat template: {reason(error)}; {_NO_CHAT}.") from error

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The base's chat template; without `add_generation_prompt` the last message is left open, to be continued.

        Without the system message where the template refuses it, as lm-eval's `hf` does.
        """
        try:
            return render_chat(chat_history, self.tokenizer, _NO_CHAT, add_generation_prompt=add_generation_prompt)
        except PromptError as error:
            raise ConfigError(str(error)) from error

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: object) -> list[int]:
        """Token ids; by default with the special tokens in front, unless the text brings its BOS, as a chat template's does."""
        if add_special_tokens is None:
            (ids,) = prompt_ids([string], self.tokenizer)
        else:
            (ids,) = text_ids([string], self.tokenizer)
            ids = front_ids(self.tokenizer) + ids if add_special_tokens else ids
        return ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both, as lm-eval's `hf` has them.

        White space that ends the context goes to the continuation. A context without a token, of white space alone, is the prefix token.
        """
        context_ids, continuation_ids = super()._encode_pair(context, continuation)
        return context_ids or [self.prefix_token_id], continuation_ids

    def _cut(self, contexts: Sequence[list[int]], room: int, what: str) -> list[list[int]]:
        """The last `room` tokens of each context, as in lm-eval's `hf`: what is cut off is the beginning, BOS too."""
        if room < 1:
            raise ConfigError(f"{what} leaves no room for a context in {self.max_length} tokens; shorten it.")
        if cut := sum(len(context) > room for context in contexts):
            log.warning("%d contexts have over %d tokens and lose their beginning, as in lm-eval's hf.", cut, room)
        return [context[-room:] for context in contexts]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, greedy) of each request's continuation after its context; DataError where both are empty."""
        if any(request.args == ("", "") for request in requests):
            raise DataError("A request has neither context nor continuation, so there is nothing to score; remove the item.")
        return super().loglikelihood(requests, disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[object, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: object
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, greedy) of each (texts, context, continuation); continuations share the passes over their context."""
        by_context: dict[tuple[int, ...], list[int]] = {}
        for index, (texts, context, continuation) in enumerate(requests):
            if not continuation:
                raise DataError(f"A continuation holds no token of its own: {shown(texts)}; remove the item.")
            room, what = self.max_length + 1 - len(continuation), f"A continuation of {len(continuation)} tokens"
            by_context.setdefault(tuple(self._cut([context], room, what)[0]), []).append(index)
        groups = []
        for context, indices in by_context.items():
            size = _MAX_CHOICES if len(context) > 1 else 1  # one token is quickly read, and may be followed by a whole document
            groups += [(context, indices[start : start + size]) for start in range(0, len(indices), size)]
        questions = [Question(context, [requests[index][2] for index in indices]) for context, indices in groups]
        with tqdm(total=len(groups), desc="contexts", disable=disable_tqdm or not distributed.is_main()) as bar:
            (rows,) = score(self._manager, {"": self._variant}, questions, self.batch_size, bar.update).values()
        pairs = (pair for (_, indices), row in zip(groups, rows, strict=True) for pair in zip(indices, row, strict=True))
        return [(value.sum, value.greedy) for _, value in sorted(pairs)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts in lm-eval's windows: the first follows the prefix token, so there is no prompt to read."""
        windows, owners = [], []
        for owner, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers up to the first stop string or the end token; greedy, or sampled where a task asks for `do_sample`."""
        by_settings: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            by_settings.setdefault(repr(request.args[1]), []).append(index)
        batches = []
        for indices in by_settings.values():
            settings = self._settings(requests[indices[0]].args[1])
            new = settings["max_new_tokens"]
            encoded = [self.tok_encode(requests[index].args[0]) or [self.prefix_token_id] for index in indices]
            prompts = self._cut(encoded, self.max_length - new, f"An answer of {new} tokens")
            lengths, most = [len(prompt) for prompt in prompts], [new] * len(prompts)
            for rows in batches_by_length(self._manager.layout, lengths, most, self.batch_size):
                batches.append(([indices[row] for row in rows], [prompts[row] for row in rows], settings))
        bar = tqdm(distributed.share(batches), desc="batches", disable=disable_tqdm or not distributed.is_main())
        answers = [pair for part, prompts, how in bar for pair in zip(part, self._answers(prompts, **how), strict=True)]
        return [text for _, text in sorted(distributed.gather(answers))]

    def _settings(self, task_settings: dict) -> dict[str, object]:
        """A task's generation settings as arguments of `_answers`; UnknownNameError or ConfigError for what is not done here."""
        _check_settings(task_settings)
        known = normalize_gen_kwargs({name: value for name, value in task_settings.items() if value is not None})
        if known["do_sample"] and known.get("temperature") == 0:
            raise ConfigError("temperature is 0 with do_sample; leave do_sample out for greedy answers, or give a temperature.")
        eos = None if self.eot_token_id is None else self.tokenizer.decode(self.eot_token_id)
        until = [text for text in handle_stop_sequences(known["until"], eos) if text]
        names = ("do_sample", "min_p", "temperature", "top_k", "top_p") if known["do_sample"] else ("do_sample",)
        chosen = {name: known[name] for name in names if name in known}
        return chosen | {"until": until, "max_new_tokens": known["max_gen_toks"]}

    @torch.no_grad()
    def _answers(self, prompts: Sequence[list[int]], until: list[str], **settings: object) -> list[str]:
        ends = end_tokens(self._manager.model, self.tokenizer)
        with self._manager.eval_turn():
            read = read_variants(self._manager, prompts, [(self._variant, prompt) for prompt in range(len(prompts))])
            start = read.ids.shape[1]
            stopping = [_Until(self.tokenizer, until, start)] if until else []
            config = eval_generation_config(ends, **settings)
            ((_, ids),) = generate(read, generation_config=config, stopping_criteria=stopping)
        answers = (before_end(tokens, ends) for tokens in ids[:, start:].tolist())
        texts = (self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in answers)
        return [postprocess_generated_text(text, until, None) for text in texts]


class _Until(StoppingCriteria):
    """Stops each row for itself once its answer, which begins at token `start`, holds a stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, until: list[str], start: int):
        self._tokenizer, self._until, self._start = tokenizer, until, start
        self._span = max(len(text.encode()) for text in until)  # no stop string has more tokens than bytes

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        """Done or not, bool [rows]."""
        recent = self._tokenizer.batch_decode(input_ids[:, max(self._start, input_ids.shape[1] - self._span) :])
        return torch.tensor([any(stop in text for stop in self._until) for text in recent], device=input_ids.device)


def _check_settings(settings: dict) -> None:
    """UnknownNameError or ConfigError for what is not done here, or lm-eval or transformers would stumble over; None is left out."""
    if unknown := sorted(map(str, settings.keys() - {*SETTINGS, *_LENGTHS, "num_beams"})):
        raise UnknownNameError("generation setting", unknown[0], SETTINGS)
    until = settings.get("until") or []
    if not all(isinstance(text, str) for text in ([until] if isinstance(until, str) else until)):
        raise ConfigError(f"until is {shown(until)}; it must be a text or a list of texts.")
    if settings.get("do_sample") not in (None, True, False):
        raise ConfigError(f"do_sample is {settings['do_sample']!r}; it must be true or false.")
    if settings.get("num_beams") not in (None, 1):
        raise ConfigError(f"num_beams is {settings['num_beams']!r}; answers are greedy or sampled here, so leave it out.")
    limits = dict.fromkeys(_LENGTHS, (1, sys.maxsize)) | dict.fromkeys(("top_p", "min_p"), (0, 1))
    limits |= {"temperature": (0, 100), "top_k": (0, sys.maxsize)}
    for name, (low, high) in limits.items():
        value = settings.get(name)
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            raise ConfigError(f"{name} is {shown(value)}; it must be a number from {low} to {high}.")


def _count(name: str, value: int | str) -> int:
    if not str(value).isdecimal() or int(value) < 1:
        raise ConfigError(f"{name} is {shown(value)}; give a whole number of at least 1, as none is searched for here.")
    return int(value)
