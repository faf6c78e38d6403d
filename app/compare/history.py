"""The turns before a prompt as they arrive over HTTP: [{"prompt": ..., "answers": {variant: text}}, ...]. Pure."""

from pydantic import BaseModel, ConfigDict

from app.ui.checks import shown
from app.ui.validation import checked
from bitune.errors import ConfigError
from bitune.schema.conversation import Turn

MAX_TURNS = 32  # before the prompt; each costs some milliseconds even where it is only a word


class TurnFields(BaseModel):
    """A question and what each variant answered."""

    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: str
    answers: dict[str, str]


def read_history(value: object) -> tuple[Turn, ...]:
    """Plain values as the engine takes them; what the engine would get is left as it is.

    Args:
        value: A list of {"prompt": ..., "answers": {variant: text}}, or None for none.

    Raises:
        ConfigError: It is anything else, or there are more than MAX_TURNS.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigError(f'history must be a list of {{"prompt": ..., "answers": {{variant: text}}}}; got {shown(value)}.')
    if len(value) > MAX_TURNS:
        raise ConfigError(f"The history has {len(value)} turns; this page goes on with at most {MAX_TURNS}.")
    return tuple(turn if isinstance(turn, Turn) else _turn(turn, number) for number, turn in enumerate(value, 1))


def _turn(value: object, number: int) -> Turn:
    fields = checked(TurnFields, value, f"Turn {number} of the history")
    return Turn(fields.prompt, fields.answers)
