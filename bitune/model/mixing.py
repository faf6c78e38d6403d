"""Mixing coefficients (theta -> alpha) and the mixing of cache rows.

Equations: Bitune (arXiv 2405.14862), section 3.2; `mixed = (1 - alpha) * first + alpha * second` per layer, separately for
keys (after the rotary embedding) and values.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Cache

from bitune.errors import ConfigError
from bitune.modeling.cache import pick_rows, with_layers
from bitune.schema.config import MixingSettings
from bitune.schema.variants import MixingRatios

_TOGETHER = 2**24  # numbers up to which layers are mixed by one call, not each by calls of its own: the same arithmetic


class MixingCoefficients(nn.Module):
    """Learned weights theta, one a layer for keys and one for values, kept in float32 whatever the model's dtype.

    `abs`: alpha = |theta| / (|theta| + theta_init); `relu`: the same with max(theta, 0), so a negative theta gives alpha 0.
    theta starts at `theta_init`, so alpha starts at 0.5; `start_at` begins elsewhere.
    """

    def __init__(self, layers: int, parameterization: str = "abs", theta_init: float = 0.01):
        super().__init__()
        settings = MixingSettings(parameterization, theta_init)  # refuses what makes no sense
        self.parameterization = settings.parameterization
        self.theta_init = float(settings.theta_init)
        self.theta_k = nn.Parameter(torch.full((layers,), self.theta_init, dtype=torch.float32))
        self.theta_v = nn.Parameter(torch.full((layers,), self.theta_init, dtype=torch.float32))

    def forward(self) -> tuple[Tensor, Tensor]:
        """alpha for keys and for values: two float32 tensors [layers] in [0, 1), differentiable."""
        return self._alpha(self.theta_k), self._alpha(self.theta_v)

    def _alpha(self, theta: Tensor) -> Tensor:
        size = theta.abs() if self.parameterization == "abs" else theta.relu()
        return size / (size + self.theta_init)

    @torch.no_grad()
    def start_at(self, alpha: float) -> None:
        """Set every theta so that alpha begins at `alpha`, see `check_initial_alpha`."""
        check_initial_alpha(alpha, self.theta_init)
        for theta in (self.theta_k, self.theta_v):
            theta.fill_(_initial_theta(alpha, self.theta_init))

    def ratios(self) -> MixingRatios:
        """alpha as plain numbers."""
        keys, values = self()
        return MixingRatios(tuple(keys.tolist()), tuple(values.tolist()))

    def _apply(self, fn, recurse=True):
        # model.to(bfloat16) must not round 2 x layers numbers to 8 bits: follow the device, keep float32.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)


def check_initial_alpha(alpha: float, theta_init: float) -> None:
    """ConfigError unless training can begin at this ratio, in the float32 of theta: at 0 and at 1 there is no gradient."""
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha would start at {alpha}; choose a value between 0 and 1, both excluded.")
    theta = _initial_theta(alpha, theta_init)
    start = (theta / (theta + theta_init)).item()
    if not 0 < start < 1:
        raise ConfigError(f"alpha would start at {alpha}, which float32 rounds to {start:g}; choose a value further from it.")


def _initial_theta(alpha: float, theta_init: float) -> Tensor:
    """The theta whose alpha this is; float32, scalar."""
    return torch.tensor(theta_init * alpha / (1 - alpha), dtype=torch.float32)


def mix(first: Tensor, second: Tensor, alpha: Tensor) -> Tensor:
    """(1 - alpha) * first + alpha * second, computed in float32 and returned in the dtype of `first`.

    `first`, `second` [..., heads, tokens, head dim]; `alpha` [...], rows say, or layers and rows.
    """
    alpha = alpha.to(first.device, torch.float32)[..., None, None, None]
    mixed = (1 - alpha) * first.float() + alpha * second.float()
    return mixed.to(first.dtype)


def mix_rows(cache: Cache, first: Tensor, second: Tensor, alpha_k: Tensor, alpha_v: Tensor) -> Cache:
    """A new cache whose row r mixes the rows `first[r]` and `second[r]` of `cache`; the given cache stays as it is.

    `first`, `second` int64 [rows]; `alpha_k`, `alpha_v` float32 [layers, rows]. A row that takes one pass only has
    `first == second`; where that holds for all rows nothing is computed.
    """
    single = bool((first == second).all())
    # Once, not layer by layer: each copy to a GPU waits for it. Layers elsewhere fetch them from there.
    first, second, alpha_k, alpha_v = (values.to(cache.layers[0].keys.device) for values in (first, second, alpha_k, alpha_v))

    def of_layer(tensor: Tensor, alpha: Tensor) -> Tensor:
        head = pick_rows(tensor, first)
        return head if single else mix(head, pick_rows(tensor, second), alpha)

    def of_all(layers: Sequence[Tensor], alphas: Tensor) -> Sequence[Tensor]:
        is_small = len(first) * sum(map(torch.numel, layers)) <= _TOGETHER * len(layers[0])
        if single or not is_small or len({(layer.shape, layer.device) for layer in layers}) > 1:
            return list(map(of_layer, layers, alphas))
        together = torch.stack(list(layers))
        return mix(together[:, first], together[:, second], alphas).unbind(0)

    keys, values = (
        of_all([layer.keys for layer in cache.layers], alpha_k),
        of_all([layer.values for layer in cache.layers], alpha_v),
    )
    return with_layers(cache, lambda index, _: (keys[index], values[index]))
