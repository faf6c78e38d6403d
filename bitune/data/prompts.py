"""A person's text in a prompt template, as token ids. Knows tokenizers; knows no model."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from bitune.data.chat import render_chat
from bitune.data.encoding import prompt_ids, text_ids
from bitune.errors import PromptError
from bitune.schema.config import CHAT, PLACEHOLDER, check_template

# Longest token seen in ordinary text times a margin: text beyond this cannot fit, and tokenizing a megabyte takes seconds.
_CHARACTERS_PER_TOKEN = 24
_ALLOWED_CONTROLS = "\n\t\r"


@dataclass(frozen=True)
class PromptTemplate:
    """How a person's text becomes the prompt: `text` holds `{prompt}` once, or is `chat` for the base's chat template, or None
    to leave the text as it is."""

    text: str | None

    def __post_init__(self):
        check_template(self.text)

    def render(self, prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """The whole text that the model reads. PromptError if the base has no chat template, or one that fails."""
        if self.text is None:
            return prompt
        if self.text != CHAT:
            return self.text.replace(PLACEHOLDER, prompt)
        remedy = "choose the checkpoint's own template, or none"
        return render_chat([{"role": "user", "content": prompt}], tokenizer, remedy)

    def encode(self, prompt: str, tokenizer: PreTrainedTokenizerBase, context: int) -> tuple[str, list[int]]:
        """The rendered text and its token ids: with the tokenizer's special tokens in front, but for a chat template, which writes
        all of them itself, as in transformers.

        PromptError if the prompt is empty, not text, or leaves no room in `context` tokens.
        """
        check_text(prompt, context)
        text = self.render(prompt, tokenizer)
        if len(text) > context * _CHARACTERS_PER_TOKEN:
            raise PromptError(
                f"The template makes a text of {len(text):,} characters; the model reads {context:,} tokens, so choose another."
            )
        (ids,) = text_ids([text], tokenizer) if self.text == CHAT else prompt_ids([text], tokenizer)
        if len(ids) >= context:
            raise PromptError(
                f"The prompt has {len(ids):,} tokens and the model reads {context:,}, the answer included; shorten it."
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
