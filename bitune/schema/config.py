"""What a checkpoint says about itself: bitune_config.json. Rejects unknown keys and versions; knows no file and no tensor."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace

from bitune.errors import CheckpointError, ConfigError, UnknownNameError, shown
from bitune.schema.variants import BIDIRECTIONAL, CAUSAL, Method, PromptPass

FORMAT_VERSION = 1
PARAMETERIZATIONS = ("abs", "relu")
CHAT = "chat"
PLACEHOLDER = "{prompt}"
MAX_TEMPLATE = 20_000
"""Characters of a prompt template: more than any model reads as an instruction, little enough to tokenize at once."""

FLOAT32_TINY, FLOAT32_MAX = 2.0**-126, 2.0**128 - 2.0**104
"""The normal numbers of float32: below, some processors round to 0."""

_FOLDER = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class BaseReference:
    """The base a checkpoint was trained on; None or empty is unknown.

    Args:
        id: embedded name, Hub id, or name of a folder or file.
        revision: commit on the Hub.
        sha256: of its weights, if they are one file.
        model_type: as in its config.json.
        layers, hidden_size: of its decoder.
        fingerprint: a few of its weights, see bitune.base.fingerprint.
    """

    id: str
    revision: str | None = None
    sha256: str | None = None
    model_type: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    fingerprint: tuple[float, ...] = ()


@dataclass(frozen=True)
class MixingSettings:
    """How the learned theta becomes the mixing ratio alpha; see bitune.model.mixing.

    Args:
        parameterization: `abs` or `relu`, what is applied to theta first.
        theta_init: above 0; alpha = theta / (theta + theta_init), and theta starts there, so that alpha starts at 0.5.

    Raises:
        UnknownNameError, ConfigError: it is none of these.
    """

    parameterization: str = "abs"
    theta_init: float = 0.01

    def __post_init__(self):
        if self.parameterization not in PARAMETERIZATIONS:
            raise UnknownNameError("mixing parameterization", str(self.parameterization), PARAMETERIZATIONS)
        if isinstance(self.theta_init, bool) or not isinstance(self.theta_init, int | float):
            raise ConfigError(f"theta_init is {shown(self.theta_init)}; it must be a number.")
        if not self.theta_init > 0:
            raise ConfigError(f"theta_init is {self.theta_init}; it must be above 0, as alpha = theta / (theta + theta_init).")
        if not FLOAT32_TINY <= self.theta_init <= FLOAT32_MAX:
            raise ConfigError(
                f"theta_init is {shown(self.theta_init)}; alpha = theta / (theta + theta_init) is computed in float32, whose numbers go "
                f"from {FLOAT32_TINY:.2g} to {FLOAT32_MAX:.2g}: choose one of them."
            )


@dataclass(frozen=True)
class BituneConfig:
    """The content of bitune_config.json.

    Args:
        base: what the checkpoint was trained on.
        passes: one, or two that are mixed; they name adapter slots (`causal`, `bidirectional`).
        answer_adapter: the slot that answers.
        mixing: how the passes are mixed; None for one pass.
        adapters: slot in use -> its folder inside the checkpoint.
        prompt_template: a text that holds `{prompt}` once, `chat` for the base's chat template, or None for the bare prompt.
        training: facts for people; nothing reads them back.
        format_version: of the folder.

    Raises:
        ConfigError: the template is none of these.
    """

    base: BaseReference
    passes: tuple[PromptPass, ...]
    answer_adapter: str | None = CAUSAL
    mixing: MixingSettings | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    prompt_template: str | None = None
    training: Mapping[str, object] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self):
        check_template(self.prompt_template)

    @property
    def method(self) -> Method:
        """The passes as a method of the variant table."""
        return Method(self.passes, self.mixing is not None, self.answer_adapter)

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object], file: str = "bitune_config.json") -> "BituneConfig":
        """Check and read what `to_dict` wrote; CheckpointError names `file`, the key and the remedy."""
        if not isinstance(data, Mapping):
            raise CheckpointError(f"{file} holds a {type(data).__name__}, not an object; it is not a Bitune config.")
        version = data.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            raise CheckpointError(
                f"{file} has format_version {shown(version)}; this version of bitune reads {FORMAT_VERSION}: update bitune."
            )
        _check_keys(cls, data, file)
        try:
            mixing = data.get("mixing")
            config = cls(
                **{
                    **data,
                    "base": _base_reference(data["base"], file),
                    "passes": tuple(_section(PromptPass, p, f"{file}: passes") for p in data["passes"]),
                    "mixing": None if mixing is None else _section(MixingSettings, mixing, f"{file}: mixing"),
                }
            )
            config._check(file)
        except (ConfigError, UnknownNameError) as error:
            raise CheckpointError(f"{file}: {error} Download or save the checkpoint again.") from error
        return config

    def _check(self, file: str) -> None:
        slots = set(self.method.slots)
        if not slots or not slots <= {CAUSAL, BIDIRECTIONAL} or set(self.adapters) != slots:
            raise CheckpointError(
                f"{file}: adapters are {shown(sorted(self.adapters))}, but the passes use {shown(sorted(slots))}; they must agree "
                f"and be {CAUSAL!r}, {BIDIRECTIONAL!r} or both."
            )
        folders = list(self.adapters.values())
        for folder in folders:
            if not isinstance(folder, str) or not _FOLDER.fullmatch(folder) or folders.count(folder) > 1:
                raise CheckpointError(
                    f"{file}: adapter folder {shown(folder)} must be the name of a folder inside the checkpoint, each adapter in its own."
                )


def check_template(text: str | None) -> None:
    """ConfigError unless `text` is a prompt template: None, `chat`, or text that holds `{prompt}` exactly once."""
    if text is None or text == CHAT:
        return
    if not isinstance(text, str) or text.count(PLACEHOLDER) != 1:
        raise ConfigError(f"Template {shown(text)} must hold {PLACEHOLDER} exactly once, or be {CHAT!r}.")
    if len(text) > MAX_TEMPLATE:
        raise ConfigError(f"Template {shown(text)} has {len(text):,} characters; at most {MAX_TEMPLATE:,} are read: shorten it.")


# What a JSON value of each key must be; the classes themselves check theta_init, parameterization and prompt_template.
_NOTHING = type(None)
_TYPES: dict[type, dict[str, tuple[type, ...]]] = {
    BaseReference: {
        "id": (str,),
        "fingerprint": (list, tuple),
        **dict.fromkeys(("revision", "sha256", "model_type"), (str, _NOTHING)),
        **dict.fromkeys(("layers", "hidden_size"), (int, _NOTHING)),
    },
    PromptPass: {"adapter": (str, _NOTHING), "attention": (str,)},
    MixingSettings: {},
    BituneConfig: {
        "base": (dict,),
        "passes": (list, tuple),
        "answer_adapter": (str, _NOTHING),
        "mixing": (dict, _NOTHING),
        "adapters": (dict,),
        "training": (dict,),
    },
}
_WORDS = {str: "text", int: "a whole number", list: "a list", tuple: "a list", dict: "an object", _NOTHING: "null"}
_AGAIN = "save or download the checkpoint again."


def _check_keys(kind: type, data: Mapping[str, object], where: str) -> None:
    """CheckpointError unless an object of the file has the keys of `kind`, all that it needs, and values of their types."""
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where} holds {shown(data)}, which is not an object; {_AGAIN}")
    known = [f.name for f in fields(kind)]
    if unknown := sorted(set(data) - set(known)):
        raise CheckpointError(
            f"{where} has the unknown key {shown(unknown[0])}; known: {', '.join(known)}. "
            "Remove it, or update bitune if a newer one wrote it."
        )
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if lacking := [key for key in needed if key not in data]:
        raise CheckpointError(f"{where} lacks the key {lacking[0]!r}; {_AGAIN}")
    for key, types in _TYPES[kind].items():
        if key in data and type(data[key]) not in types:
            must = " or ".join(dict.fromkeys(_WORDS[t] for t in types))
            raise CheckpointError(
                f"{where} has the {key} {shown(data[key])}, a {type(data[key]).__name__}; it must be {must}: {_AGAIN}"
            )


def _section(kind: type, data: Mapping[str, object], where: str):
    _check_keys(kind, data, where)
    return kind(**data)


def _base_reference(data: Mapping[str, object], file: str) -> BaseReference:
    base = _section(BaseReference, data, f"{file}: base")
    for value in base.fingerprint:
        if type(value) not in (int, float) or not abs(value) <= FLOAT32_MAX:
            raise CheckpointError(f"{file}: base has {shown(value)} in its fingerprint, which is no finite number; {_AGAIN}")
    return replace(base, fingerprint=tuple(float(x) for x in base.fingerprint))
