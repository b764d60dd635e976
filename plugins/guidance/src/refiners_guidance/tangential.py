"""Tangential guidance (TCFG): the unguided prediction without its tangential part."""

from collections.abc import Mapping

import torch
from torch import Tensor

from refiners_core import Context
from refiners_core.models.diffusion import COND, UNCOND
from refiners_guidance.rule import ChangePasses, PassRule


class Tangential(PassRule):
    """Projects the unguided prediction on the direction that both predictions share.

    The direction is the first right singular vector of the two predictions of a picture
    (arXiv:2503.18137, algorithm 1): what the unguided prediction has beside it misleads.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    def rule(self) -> "ProjectUnguided":
        """Returns the layer that projects the unguided prediction."""
        return ProjectUnguided(self.scale_key)


class ProjectUnguided(ChangePasses):
    """Projects the unguided prediction on the first singular vector (arXiv:2503.18137)."""

    def changed(self, context: Context, passes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cond, uncond = passes[COND].flatten(1), passes[UNCOND].flatten(1)
        _, _, vectors = torch.linalg.svd(torch.stack([cond, uncond], 1), full_matrices=False)
        direction = vectors[:, 0]
        along = (uncond * direction).sum(1, keepdim=True) * direction
        return {UNCOND: along.view_as(passes[UNCOND])}
