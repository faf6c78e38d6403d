"""What a checkpoint says about itself: bitune_config.json. Rejects unknown keys and versions; knows no file and no tensor."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace

from bitune.errors import CheckpointError, ConfigError, UnknownNameError
from bitune.schema.variants import BIDIRECTIONAL, CAUSAL, Method, PromptPass

FORMAT_VERSION = 1
PARAMETERIZATIONS = ("abs", "relu")
CHAT = "chat"
PLACEHOLDER = "{prompt}"
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
            raise ConfigError(f"theta_init is {self.theta_init!r}; it must be a number.")
        if not (math.isfinite(self.theta_init) and self.theta_init > 0):
            raise ConfigError(f"theta_init is {self.theta_init}; it must be above 0, as alpha = theta / (theta + theta_init).")


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
                f"{file} has format_version {version!r}; this version of bitune reads {FORMAT_VERSION}: update bitune."
            )
        try:
            passes = tuple(_section(PromptPass, p, f"{file}: passes") for p in data["passes"])
            mixing = data.get("mixing")
            values = {
                **data,
                "base": _base_reference(data["base"], file),
                "passes": passes,
                "mixing": None if mixing is None else _section(MixingSettings, mixing, f"{file}: mixing"),
            }
            config = _section(cls, values, file)
            config._check(file)
        except CheckpointError:
            raise
        except (ConfigError, UnknownNameError) as error:
            raise CheckpointError(f"{file}: {error} Download or save the checkpoint again.") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{file} cannot be read ({type(error).__name__}: {error}); save or download the checkpoint again."
            ) from error
        return config

    def _check(self, file: str) -> None:
        if not isinstance(self.adapters, Mapping) or not isinstance(self.training, Mapping):
            raise CheckpointError(f"{file}: adapters and training must be objects; save or download the checkpoint again.")
        slots = set(self.method.slots)
        if not slots or not slots <= {CAUSAL, BIDIRECTIONAL} or set(self.adapters) != slots:
            raise CheckpointError(
                f"{file}: adapters are {sorted(self.adapters)}, but the passes use {sorted(map(str, slots))}; they must agree "
                f"and be {CAUSAL!r}, {BIDIRECTIONAL!r} or both."
            )
        folders = list(self.adapters.values())
        for folder in folders:
            if not isinstance(folder, str) or not _FOLDER.fullmatch(folder) or folders.count(folder) > 1:
                raise CheckpointError(
                    f"{file}: adapter folder {folder!r} must be the name of a folder inside the checkpoint, each adapter in its own."
                )


def check_template(text: str | None) -> None:
    """ConfigError unless `text` is a prompt template: None, `chat`, or text that holds `{prompt}` exactly once."""
    if text is not None and text != CHAT and (not isinstance(text, str) or text.count(PLACEHOLDER) != 1):
        raise ConfigError(f"Template {text!r} must hold {PLACEHOLDER} exactly once, or be {CHAT!r}.")


def _section(kind: type, data: Mapping[str, object], where: str):
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where} holds {data!r}, which is not an object; save or download the checkpoint again.")
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise CheckpointError(
            f"{where} has the unknown key {unknown[0]!r}; known: {', '.join(known)}. Remove it, or update bitune if a newer one wrote it."
        )
    return kind(**data)


def _base_reference(data: Mapping[str, object], file: str) -> BaseReference:
    base = _section(BaseReference, data, f"{file}: base")
    kinds = {"id": str, "revision": str, "sha256": str, "model_type": str, "layers": int, "hidden_size": int}
    for key, kind in kinds.items():
        value = getattr(base, key)
        if not isinstance(value, kind) and (value is not None or key == "id"):
            raise CheckpointError(
                f"{file}: base has the {key} {value!r}; it must be a {kind.__name__}. Download or save it again."
            )
    return replace(base, fingerprint=tuple(float(x) for x in base.fingerprint))
