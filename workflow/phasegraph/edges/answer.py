"""What an ablation does to the answer, at the answer positions only."""

import numpy as np
import torch
from torch import Tensor

from phasegraph.edges.sums import by_group
from phasegraph.groups import leave_one_out
from phasegraph.model.components import Components, logits_of
from phasegraph.types import GROUPS, Answer


class AnswerSums:
    """Effects of every source on the answer, by prompt group."""

    def __init__(self, kinds: tuple[Answer, ...], components: Components, n_sources: int):
        self.kinds, self.components = kinds, components
        device = components.unembedding.device
        self.sums = torch.zeros(len(kinds), GROUPS, n_sources, dtype=torch.float64, device=device)
        self.answers = np.zeros(GROUPS)
        self.prompts = np.zeros(n_sources, dtype=np.int64)

    def start(self, last: Tensor, positions: Tensor, right: Tensor, wrong: Tensor, group: Tensor) -> None:
        """Take the clean last residual stream [B, T, D] of B prompts, and their right and wrong tokens [B, A]."""
        self.positions, self.group = positions, group
        columns = self.components.unembedding.T  # [vocabulary, D]
        self.direction = (columns[right] - columns[wrong]).float()  # [B, A, D]; a bias cancels in the difference
        self.difference = self._difference(last[:, positions])
        if Answer.KL in self.kinds:
            self.clean = logits_of(self.components, last[:, positions]).float().log_softmax(-1)  # [B, A, vocabulary]
        self.answers += np.bincount(group.cpu().numpy(), minlength=GROUPS) * len(positions)

    def add(self, source: slice, last: Tensor) -> None:
        """Add a slice of ablations, by their last residual streams [R, B, T, D]."""
        x = last[:, :, self.positions]  # [R, B, A, D]
        for number, kind in enumerate(self.kinds):
            effect = self.difference - self._difference(x) if kind is Answer.LOGIT_DIFFERENCE else self._kl(x)
            self.sums[number, :, source] += by_group(effect.sum(-1).T, self.group)  # [R, B] -> [GROUPS, R]
        self.prompts[source] += len(self.group)

    def means(self) -> dict[Answer, np.ndarray]:
        """Average over prompts and positions, with replicates: float64 [GROUPS + 1, sources] of each kind."""
        counts = leave_one_out(self.answers)[:, None]
        sums = self.sums.cpu().numpy()
        return {kind: leave_one_out(sums[number]) / counts for number, kind in enumerate(self.kinds)}

    def _difference(self, x: Tensor) -> Tensor:
        return (self.components.final(x).float() * self.direction).sum(-1)

    def _kl(self, x: Tensor) -> Tensor:
        ablated = logits_of(self.components, x).float().log_softmax(-1)  # [R, B, A, vocabulary]
        return (self.clean.exp() * (self.clean - ablated)).sum(-1)
