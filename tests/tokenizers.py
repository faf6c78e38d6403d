"""Tokenizers of many kinds for the tiny models, offline: what they put in front of a text and at its end, and in which way."""

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import ByT5Tokenizer, PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"


def around(front: str = "", end: str = "", **names: str | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges, whose post-processor puts special tokens around a text."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())[:240]
    merges = [("Ġ", "o"), ("Ġo", "n"), ("a", "b")]
    vocabulary = {symbol: index for index, symbol in enumerate([*symbols, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = {name: text for name, text in {**NAMES, **names}.items() if text is not None}
    special = list(dict.fromkeys([*names.values(), *front.split(), *end.split()]))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    if front or end:
        ids = [(text, tokenizer.token_to_id(text)) for text in special]
        tokenizer.post_processor = TemplateProcessing(single=f"{front} $A {end}".strip(), special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def flagged(**flags: bool) -> PreTrainedTokenizerFast:
    """The same with transformers' own flags instead of a post-processor, as Llama's and many GGUF files have them."""
    return PreTrainedTokenizerFast(tokenizer_object=around().backend_tokenizer, **NAMES, **flags)


def sentencepiece(scheme: str, front: str = "", end: str = "") -> PreTrainedTokenizerFast:
    """Metaspace as in SentencePiece: a space of its own before the first word (`first`) or every piece (`always`)."""
    characters = ["▁", *map(chr, range(33, 127))]
    merges = [("▁", "o"), ("▁o", "n"), ("a", "b")]
    pieces = ["<unk>", "<s>", "</s>", "<pad>", *characters, *(a + b for a, b in merges)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    if front or end:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{front} $A {end}".strip(), special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **NAMES)


class InPython(PreTrainedTokenizer):
    """A character at a time, in Python; its own code puts special tokens around a text."""

    def __init__(self, front: int | None = None, end: int | None = None, **names: object):
        self._around = [] if front is None else [front], [] if end is None else [end]
        super().__init__(**{**NAMES, **names})

    @property
    def vocab_size(self) -> int:
        return 128

    def get_vocab(self) -> dict[str, int]:
        return {chr(code): code for code in range(128)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **others: object) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: list[int] | None = None) -> list[int]:
        front, end = self._around
        return front + token_ids_0 + end


@dataclass(frozen=True)
class Kind:
    """A tokenizer, the same without what it puts at the end of a text, and the special tokens that stand in front of one."""

    make: Callable[[], PreTrainedTokenizerBase]
    without_end: Callable[[], PreTrainedTokenizerBase]
    front: tuple[str, ...] = ()


def _kind(make: Callable, *front: str, end: dict | None = None, **arguments: object) -> Kind:
    """`end` are the arguments that put something at the end."""
    return Kind(lambda: make(**arguments, **(end or {})), lambda: make(**arguments), front)


BOS_IS_EOS = {"bos_token": "<end>", "eos_token": "<end>"}
KINDS = {
    "gpt2": _kind(around),
    "llama3": _kind(around, "<s>", front="<s>"),
    "bos_and_eos": _kind(around, "<s>", front="<s>", end={"end": "</s>"}),
    "eos": _kind(around, end={"end": "</s>"}),
    "bert": _kind(around, "[CLS]", front="[CLS]", bos_token=None, end={"end": "[SEP]"}),
    "several_in_front": _kind(around, "<s>", "<lang>", front="<s> <lang>", end={"end": "</s>"}),
    "glm": _kind(around, "[gMASK]", "<sop>", front="[gMASK] <sop>", bos_token=None),
    "bos_is_eos": _kind(around, "<end>", front="<end>", **BOS_IS_EOS, end={"end": "<end>"}),
    "no_bos": _kind(around, bos_token=None),
    "no_bos_but_eos": _kind(around, bos_token=None, end={"end": "</s>"}),
    "flags": _kind(flagged, "<s>", add_bos_token=True, end={"add_eos_token": True}),
    "no_bos_by_flag": _kind(flagged, add_bos_token=False, end={"add_eos_token": True}),
    "llama2": _kind(sentencepiece, "<s>", scheme="first", front="<s>"),
    "sentencepiece": _kind(sentencepiece, "<s>", scheme="always", front="<s>", end={"end": "</s>"}),
    "byt5": Kind(lambda: ByT5Tokenizer(extra_ids=0), lambda: _without_eos(ByT5Tokenizer(extra_ids=0))),
    "in_python": _kind(InPython, "<s>", front=128, end={"end": 129}),
    "in_python_without": _kind(InPython),
}
LOADABLE = [name for name in KINDS if not name.startswith("in_python")]  # transformers knows no class of a test


def _without_eos(tokenizer: ByT5Tokenizer) -> ByT5Tokenizer:
    tokenizer.build_inputs_with_special_tokens = lambda ids, more=None: ids
    return tokenizer
