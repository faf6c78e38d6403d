"""lm-evaluation-harness runs Bitune: `--model bitune`, where a request's context is the prompt and its continuation the answer.

Importing this module registers the class in lm-eval's own registry. lm-eval after 0.4.13 finds it by itself, by the entry point
`lm_eval.models` of an installed bitune; 0.4.13 looks for no entry points, so there `python -m bitune.harness` is its command line,
all of its arguments included.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria

from bitune import processes
from bitune.base import load_base
from bitune.checkpoint import locate, read
from bitune.data import continuation_ids, cut_left
from bitune.embedded import EMBEDDED
from bitune.engine import Engine
from bitune.errors import BituneError, ConfigError, UnknownNameError
from bitune.evaluation import Question, score
from bitune.identity import source_of
from bitune.prefill import Row, prefill
from bitune.prompts import pad_left
from bitune.support import cache_input

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CacheHook, TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as missing:
    raise ConfigError(
        f"bitune.harness needs lm-evaluation-harness ({missing}); install it with: pip install 'bitune[evaluate]'."
    ) from missing

ARGUMENTS = ("base", "batch_size", "device", "dtype", "max_length", "pretrained")
SAMPLING = ("min_p", "temperature", "top_k", "top_p")
_TOGETHER = 16  # choices scored after one reading of their context: a context that all documents share has thousands
_PORTION = 32  # batches between two savings in lm-eval's cache


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
        processes.gather([])  # from here on "cuda" is this process's own device
        if not base:
            base = source_of(read(locate(pretrained)).config.base) if pretrained else EMBEDDED.name
        self._engine = Engine(load_base(base, device=device, dtype=dtype))
        if pretrained:
            self._engine.add_checkpoint(pretrained, name="checkpoint")
        *_, self._variant = self._engine.variants.values()
        self.tokenizer: PreTrainedTokenizerBase = self._engine.base.tokenizer
        facts = self._engine.base_facts
        self._device = self._engine.base.model.get_input_embeddings().weight.device
        self.max_length = facts.context if max_length is None else _count("max_length", max_length)
        if self.max_length > facts.context:
            raise ConfigError(f"max_length is {self.max_length}, and {facts.name!r} reads {facts.context} tokens; give less.")

    def get_model_info(self) -> dict[str, object]:
        """What lm-eval writes into its results."""
        facts = self._engine.base_facts
        methods = [checkpoint.method for checkpoint in self._engine.checkpoints.values()]
        return {
            "base": facts.name,
            "method": methods[0] if methods else None,
            "model_dtype": facts.dtype,
            "model_num_parameters": facts.parameters,
        }

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """For `--use_cache`. ConfigError over several processes: their caches could part, and with them the requests they share."""
        if processes.count() > 1:
            raise ConfigError(
                f"--use_cache cannot be shared by {processes.count()} processes; leave it out, or start one process."
            )
        super().set_cache_hook(cache_hook)

    # --- text and tokens ---------------------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int | None:
        """The end token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: the BOS token, or the end token without one."""
        ids = [i for i in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id) if i is not None]
        if not ids:
            raise ConfigError(
                f"The tokenizer of {self._engine.base.id!r} has neither BOS nor end token to stand for an empty context."
            )
        return ids[0]

    @property
    def tokenizer_name(self) -> str:
        """Names lm-eval's cache of chat prompts."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The base's chat template; without `add_generation_prompt` the last message is left open, to be continued."""
        if not self.tokenizer.chat_template:
            raise ConfigError(f"The base {self._engine.base.id!r} has no chat template; leave out --apply_chat_template.")
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: object) -> list[int]:
        """Token ids; by default with the special tokens in front, unless the text brings its BOS, as a chat template's does."""
        special = not self._brings_bos(string) if add_special_tokens is None else add_special_tokens
        return self.tokenizer(string, add_special_tokens=special).input_ids

    def _brings_bos(self, text: str) -> bool:
        return self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both. White space that ends the context goes to the continuation, as everywhere in lm-eval.

        Beyond that as in `bitune.data`: the continuation's tokens are those after the context's, and where one would cross the
        border the continuation is read alone, while lm-eval's own models would lose or repeat a piece of it there.
        """
        stem = context.rstrip()
        tokenizer = partial(self.tokenizer, add_special_tokens=False) if self._brings_bos(stem) else self.tokenizer
        (answer,) = continuation_ids(stem, [context[len(stem) :] + continuation], tokenizer)
        return self.tok_encode(stem) or [self.prefix_token_id], answer

    def _cut(self, context: Sequence[int], room: int, what: str) -> list[int]:
        """The context without its beginning where it is too long for `room`; unlike lm-eval's own models it keeps its BOS token."""
        if room < 1:
            raise ConfigError(f"{what} leaves no room for a context in {self.max_length} tokens; shorten it.")
        return cut_left(list(context), room, self.tokenizer.bos_token_id)

    # --- log-likelihood ----------------------------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: object,
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy) of each (texts, context, continuation); continuations share their context's readings."""
        groups = sorted(self._groups(requests), key=lambda group: len(group[0].prompt_ids))
        found: list = [None] * len(requests)
        step = self.batch_size * _PORTION
        with tqdm(total=len(groups), desc="contexts", disable=disable_tqdm or not processes.is_main()) as bar:
            for part in (groups[start : start + step] for start in range(0, len(groups), step)):
                questions = [question for question, _ in part]
                (rows,) = score(self._engine.host, {"": self._variant}, questions, self.batch_size, bar.update).values()
                for (_, indices), row in zip(part, rows, strict=True):
                    for index, value in zip(indices, row, strict=True):
                        found[index] = (value.sum, value.greedy)
                        if (texts := requests[index][0]) is not None:
                            self.cache_hook.add_partial("loglikelihood", texts, found[index])
        return found

    def _groups(self, requests: Sequence[tuple]) -> list[tuple[Question, list[int]]]:
        """Requests of the same context as one question, with their places; a context of one token is not worth sharing."""
        places: dict[tuple[int, ...], list[int]] = {}
        for index, (_, context, continuation) in enumerate(requests):
            room = self.max_length + 1 - len(continuation)
            places.setdefault(tuple(self._cut(context, room, f"A continuation of {len(continuation)} tokens")), []).append(index)
        groups = []
        for context, indices in places.items():
            size = _TOGETHER if len(context) > 1 else 1
            for part in (indices[start : start + size] for start in range(0, len(indices), size)):
                groups.append((Question(context, [requests[index][2] for index in part]), part))
        return groups

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

    # --- generation --------------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers up to the first stop string or the end token; greedy, or sampled where a task asks for `do_sample`."""
        batches = list(self._batches(requests))
        done = []
        with tqdm(total=len(requests), desc="answers", disable=disable_tqdm or not processes.is_main()) as bar:
            for indices, prompts, settings in processes.share(batches):
                texts = self._answers(prompts, **settings)
                done.append((indices, texts))
                for index, text in zip(indices, texts, strict=True):
                    self.cache_hook.add_partial("generate_until", requests[index].args, text)
                bar.update(len(indices))
        found = [""] * len(requests)
        for indices, texts in processes.gather(done):
            for index, text in zip(indices, texts, strict=True):
                found[index] = text
        return found

    def _batches(self, requests: list[Instance]) -> Iterable[tuple[list[int], list[list[int]], dict]]:
        """(places, prompts, settings): requests that ask for the same settings, by length."""
        kinds: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            kinds.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        for indices in kinds.values():
            settings = self._settings(requests[indices[0]].args[1])
            room, what = self.max_length - settings["max_new_tokens"], f"An answer of {settings['max_new_tokens']} tokens"
            prompts = {}
            for index in indices:
                prompts[index] = self._cut(self.tok_encode(requests[index].args[0]) or [self.prefix_token_id], room, what)
            indices.sort(key=lambda index: len(prompts[index]))
            for start in range(0, len(indices), self.batch_size):
                places = indices[start : start + self.batch_size]
                yield places, [prompts[index] for index in places], settings

    def _settings(self, asked: dict) -> dict[str, object]:
        """A task's generation settings as arguments of `_answers`; UnknownNameError or ConfigError for what is not done here."""
        known = normalize_gen_kwargs(asked)
        eos = None if self.eot_token_id is None else self.tokenizer.decode(self.eot_token_id)
        until = [text for text in handle_stop_sequences(known.pop("until"), eos) if text]
        settings = {"until": until, "max_new_tokens": known.pop("max_gen_toks"), "do_sample": known.pop("do_sample")}
        if known.pop("num_beams", 1) != 1:
            raise ConfigError(f"num_beams is {asked['num_beams']!r}; answers are greedy or sampled here, so leave it out.")
        for name in known:
            if name not in SAMPLING:
                names = ("do_sample", "max_gen_toks", "num_beams", "until", *SAMPLING)
                raise UnknownNameError("generation argument", name, names)
        if settings["do_sample"] and known.get("temperature") == 0:
            raise ConfigError("temperature is 0 with do_sample; leave do_sample out for greedy answers, or give a temperature.")
        return settings | (known if settings["do_sample"] else {})

    @torch.no_grad()
    def _answers(self, prompts: Sequence[Sequence[int]], until: list[str], **settings: object) -> list[str]:
        host, variant = self._engine.host, self._variant
        ids, mask = pad_left(prompts, 0, self._device)
        cache = prefill(host, ids, mask, [Row.of(variant, row) for row in range(len(prompts))])
        ends = host.model.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        config = GenerationConfig(**settings, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0)
        stops = [_Until(self.tokenizer, until, ids.shape[1])] if until else []
        with host.using(variant.answer_adapter):
            whole = host.model.generate(
                ids, attention_mask=mask, generation_config=config, stopping_criteria=stops, **cache_input(cache)
            )
        texts = []
        for tokens in whole[:, ids.shape[1] :].tolist():
            end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            texts.append(postprocess_generated_text(self.tokenizer.decode(tokens[:end]), until, None))
        return texts


class _Until(StoppingCriteria):
    """Stops each row for itself once its answer, which begins at token `start`, holds a stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, until: list[str], start: int):
        self._tokenizer, self._until, self._start = tokenizer, until, start
        self._span = max(len(text.encode()) for text in until)  # no stop string has more tokens than bytes

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        """Done or not, bool [rows]."""
        recent = self._tokenizer.batch_decode(input_ids[:, max(self._start, input_ids.shape[1] - self._span) :])
        return torch.tensor([any(text in said for text in self._until) for said in recent], device=input_ids.device)


def _count(name: str, value: int | str) -> int:
    if not str(value).isdecimal() or int(value) < 1:
        raise ConfigError(f"{name} is {value!r}; give a whole number of at least 1, as nothing is searched for here.")
    return int(value)


def main() -> None:
    """lm-eval's command line, with `bitune` among its models; an error of ours is one sentence on stderr and status 1."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
        processes.leave()
    except BituneError as error:
        sys.exit(f"bitune: {error}")


if __name__ == "__main__":
    main()
