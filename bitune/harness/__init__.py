"""lm-evaluation-harness runs Bitune, as its model `bitune`.

Importing this room registers the model in lm-eval's own registry. Releases of lm-eval after 0.4.13 find it by the entry point
`lm_eval.models` of an installed bitune; 0.4.13 reads no entry points, so `python -m bitune.harness` is its command line with it. The
class itself, and with it torch, is imported when it is first asked for, so that `--help` answers at once.
"""

from typing import TYPE_CHECKING

from bitune.errors import ConfigError

try:
    import lm_eval.models  # noqa: F401  # its own models: the registry imports them only while it is empty
    from lm_eval.api.registry import MODEL_REGISTRY
except ImportError as missing:
    raise ConfigError(
        f"bitune.harness needs lm-evaluation-harness ({missing}); install it with: pip install 'bitune[evaluate]'."
    ) from missing

if TYPE_CHECKING:
    from bitune.harness.model import BituneLM

__all__ = ["BituneLM"]

if "bitune" not in MODEL_REGISTRY:  # an entry point may have been quicker
    MODEL_REGISTRY.register("bitune", target="bitune.harness.model:BituneLM")


def __getattr__(name: str) -> object:
    if name != "BituneLM":
        raise AttributeError(f"module 'bitune.harness' has no attribute {name!r}")
    from bitune.harness.model import BituneLM

    return BituneLM
