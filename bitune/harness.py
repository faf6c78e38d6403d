"""lm-evaluation-harness runs Bitune: `--model bitune`, where a request's context is the prompt and its continuation the answer.

Importing this module registers the class in lm-eval's own registry. Releases of lm-eval after 0.4.13 find it by the entry point
`lm_eval.models` of an installed bitune; 0.4.13 reads no entry points, so `python -m bitune.harness` is its command line with it.
"""

import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from bitune import distributed
from bitune.base.default import EMBEDDED
from bitune.base.loading import load_base
from bitune.checkpoints.folder import read, resolve_checkpoint
from bitune.data.batches import cut_left
from bitune.data.tokens import continuation_ids
from bitune.errors import BituneError, ConfigError, UnknownNameError
from bitune.evaluation.scores import Question, score
from bitune.inference.engine import Engine
from bitune.model.decoding import generate, read_variants
from bitune.model.generation_config import before_end, end_tokens, eval_generation_config
from bitune.model.identity import source_of
from bitune.model.limits import batches_by_length

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CacheHook, TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
except ImportError as missing:
    raise ConfigError(
        f"bitune.harness needs lm-evaluation-harness ({missing}); install it with: pip install 'bitune[evaluate]'."
    ) from missing

ARGUMENTS = ("base", "batch_size", "device", "dtype", "max_length", "pretrained")
SETTINGS = ("do_sample", "max_gen_toks", "min_p", "temperature", "top_k", "top_p", "until")
_DEFAULT_DEVICE = "cuda:0"  # of lm-eval's command line without --device, also where there is no GPU, or one a process
_MAX_CHOICES = 16  # scored after one pass over their context: a context that all documents share has thousands


@register_model("bitune")
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

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The base's chat template; without `add_generation_prompt` the last message is left open, to be continued."""
        if not self.tokenizer.chat_template:
            raise ConfigError(f"The base {self._name!r} has no chat template; leave out --apply_chat_template.")
        ending = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        return self.tokenizer.apply_chat_template(chat_history, tokenize=False, **ending)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: object) -> list[int]:
        """Token ids; by default with the special tokens in front, unless the text brings its BOS, as a chat template's does."""
        special = not self._brings_bos(string) if add_special_tokens is None else add_special_tokens
        return self.tokenizer(string, add_special_tokens=special).input_ids

    def _brings_bos(self, text: str) -> bool:
        return self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both. White space that ends the context goes to the continuation, as everywhere in lm-eval.

        Beyond that as in `bitune.data.tokens`: the continuation's tokens are those after the context's, and where one would cross the
        border the continuation is read alone, while lm-eval's own models would lose or repeat a piece of it there.
        """
        stem = context.rstrip()
        tokenizer = partial(self.tokenizer, add_special_tokens=False) if self._brings_bos(stem) else self.tokenizer
        (answer,) = continuation_ids(stem, [context[len(stem) :] + continuation], tokenizer)
        return self.tok_encode(stem) or [self.prefix_token_id], answer

    def _cut(self, context: list[int], room: int, what: str) -> list[int]:
        """The end of a context that is longer than `room`; unlike lm-eval's own models this keeps the BOS token."""
        if room < 1:
            raise ConfigError(f"{what} leaves no room for a context in {self.max_length} tokens; shorten it.")
        return cut_left(context, room, self.tokenizer.bos_token_id)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[object, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: object
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, greedy) of each (texts, context, continuation); continuations share the passes over their context."""
        by_context: dict[tuple[int, ...], list[int]] = {}
        for index, (_, context, continuation) in enumerate(requests):
            room, what = self.max_length + 1 - len(continuation), f"A continuation of {len(continuation)} tokens"
            by_context.setdefault(tuple(self._cut(context, room, what)), []).append(index)
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
            room, what = self.max_length - settings["max_new_tokens"], f"An answer of {settings['max_new_tokens']} tokens"
            encoded = [self.tok_encode(requests[index].args[0]) or [self.prefix_token_id] for index in indices]
            prompts = [self._cut(prompt, room, what) for prompt in encoded]
            lengths, new = [len(prompt) for prompt in prompts], [settings["max_new_tokens"]] * len(prompts)
            for rows in batches_by_length(self._manager.layout, lengths, new, self.batch_size):
                batches.append(([indices[row] for row in rows], [prompts[row] for row in rows], settings))
        bar = tqdm(distributed.share(batches), desc="batches", disable=disable_tqdm or not distributed.is_main())
        answers = [pair for part, prompts, how in bar for pair in zip(part, self._answers(prompts, **how), strict=True)]
        return [text for _, text in sorted(distributed.gather(answers))]

    def _settings(self, task_settings: dict) -> dict[str, object]:
        """A task's generation settings as arguments of `_answers`; UnknownNameError or ConfigError for what is not done here."""
        if unknown := sorted(
            task_settings.keys() - {*SETTINGS, "max_new_tokens", "max_tokens", "max_completion_tokens", "num_beams"}
        ):
            raise UnknownNameError("generation setting", unknown[0], SETTINGS)
        if task_settings.get("num_beams", 1) != 1:
            raise ConfigError(
                f"num_beams is {task_settings['num_beams']!r}; answers are greedy or sampled here, so leave it out."
            )
        known = normalize_gen_kwargs(task_settings)
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
        texts = (self.tokenizer.decode(before_end(tokens, ends)) for tokens in ids[:, start:].tolist())
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


def _count(name: str, value: int | str) -> int:
    if not str(value).isdecimal() or int(value) < 1:
        raise ConfigError(f"{name} is {value!r}; give a whole number of at least 1, as none is searched for here.")
    return int(value)


def main() -> None:
    """lm-eval's command line, with `bitune` among its models; an error of ours is one sentence on stderr and status 1."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
        distributed.leave()
    except BituneError as error:
        sys.exit(f"bitune: {error}")


if __name__ == "__main__":
    main()
