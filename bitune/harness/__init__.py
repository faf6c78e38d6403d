"""lm-evaluation-harness runs Bitune: `--model bitune`, where a request's context is the prompt and its continuation the answer."""

from bitune.harness.model import BituneLM

__all__ = ["BituneLM"]
