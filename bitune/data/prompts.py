"""A person's text in a prompt template, as token ids. Knows tokenizers; knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from bitune.data.chat import render_chat
from bitune.data.encoding import prompt_ids, text_ids
from bitune.errors import PromptError
from bitune.schema.config import CHAT, PLACEHOLDER, check_template

# Longest token seen in ordinary text times a margin: text beyond this cannot fit, and tokenizing a megabyte takes seconds.
_CHARACTERS_PER_TOKEN = 24
_ALLOWED_CONTROLS = "\n\t\r"
BETWEEN_TURNS = "\n\n"
"""What stands between an answer and the next question where no chat template says it: as between examples in a prompt."""


@dataclass(frozen=True)
class PromptTemplate:
    """How a person's text becomes the prompt: `text` holds `{prompt}` once, or is `chat` for the base's chat template, or None
    to leave the text as it is."""

    text: str | None

    def __post_init__(self):
        check_template(self.text)

    def render(self, prompt: str, tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]] = ()) -> str:
        """The whole text that the model reads.

        Args:
            prompt: The last question.
            turns: Question and answer of each turn before it. `chat` writes them as messages of user and assistant; otherwise each
                question stands in the template, its answer right behind it, then BETWEEN_TURNS.

        Raises:
            PromptError: The base has no chat template, or one that fails.
        """
        if self.text != CHAT:
            return "".join(f"{self._around(question)}{answer}{BETWEEN_TURNS}" for question, answer in turns) + self._around(
                prompt
            )
        said = [("user", prompt)]
        for question, answer in reversed(turns):
            said = [("user", question), ("assistant", answer), *said]
        remedy = "choose the checkpoint's own template, or none"
        return render_chat([{"role": role, "content": content} for role, content in said], tokenizer, remedy)

    def _around(self, question: str) -> str:
        return question if self.text is None else self.text.replace(PLACEHOLDER, question)

    def ids(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Token ids of whole texts: with the tokenizer's special tokens in front, but for a chat template, which writes all of them
        itself, as in transformers."""
        return text_ids(texts, tokenizer) if self.text == CHAT else prompt_ids(texts, tokenizer)

    def encode(
        self, prompt: str, tokenizer: PreTrainedTokenizerBase, context: int, turns: Sequence[tuple[str, str]] = ()
    ) -> tuple[str, list[int]]:
        """The text as `render` has it, and its token ids.

        PromptError if a question is empty, not text, or everything together leaves no room in `context` tokens.
        """
        for question in (*(question for question, _ in turns), prompt):
            check_text(question, context)
        whole, remedy = ("conversation", "begin a new one") if turns else ("prompt", "shorten it")
        if sum(len(answer) for _, answer in turns) > context * _CHARACTERS_PER_TOKEN:
            raise PromptError(f"The answers before are longer than the {context:,} tokens that the model reads; {remedy}.")
        text = self.render(prompt, tokenizer, turns)
        if len(text) > context * _CHARACTERS_PER_TOKEN:
            raise PromptError(
                f"The template makes a text of {len(text):,} characters; the model reads {context:,} tokens, so choose another."
            )
        (ids,) = self.ids([text], tokenizer)
        if len(ids) >= context:
            raise PromptError(
                f"The {whole} has {len(ids):,} tokens and the model reads {context:,}, the answer included; {remedy}."
            )
        if not ids:
            raise PromptError("The prompt holds no token; write something, or choose another template.")
        return text, ids


def check_text(prompt: str, context: int) -> None:
    """PromptError unless `prompt` is text that could fit into `context` tokens."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptError("The prompt is empty; write something.")
    if len(prompt) > context * _CHARACTERS_PER_TOKEN:
        raise PromptError(f"The prompt has {len(prompt):,} characters; the model reads {context:,} tokens, so shorten it.")
    for number, character in enumerate(prompt, 1):
        code = ord(character)
        if 0xD800 <= code <= 0xDFFF:
            raise PromptError(
                f"Character {number} of the prompt is half of a surrogate pair (U+{code:04X}), which is not text; remove it."
            )
        if (code < 32 and character not in _ALLOWED_CONTROLS) or 127 <= code < 160:
            raise PromptError(f"Character {number} of the prompt is the control character U+{code:04X}; remove it.")
