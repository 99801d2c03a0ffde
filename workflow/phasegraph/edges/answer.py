"""What an ablation does to the answer, at the answer positions only."""

import numpy as np
import torch
from torch import Tensor

from phasegraph.edges.sums import by_group
from phasegraph.groups import leave_one_out
from phasegraph.model.components import Components, logits_of
from phasegraph.types import GROUPS, Answer


class CleanAnswer:
    """The answers of one undisturbed pass, with which those under ablations are compared."""

    def __init__(
        self,
        kinds: tuple[Answer, ...],
        components: Components,
        last: Tensor,
        positions: Tensor,
        right: Tensor,
        wrong: Tensor,
    ):
        """Take the last residual stream [B, T, D] of B prompts, and their right and wrong tokens [B, A]."""
        self.kinds, self.components, self.positions = kinds, components, positions
        columns = components.unembedding.T  # [vocabulary, D]
        self.direction = (columns[right] - columns[wrong]).float()  # [B, A, D]; a bias cancels in the difference
        self.difference = self._difference(last[:, positions])
        if Answer.KL in kinds:
            self.clean = logits_of(components, last[:, positions]).float().log_softmax(-1)  # [B, A, vocabulary]

    def effects(self, last: Tensor) -> list[Tensor]:
        """Compare ablated last residual streams [R, B, T, D]: sums over positions of each kind, [R, B]."""
        x = last[:, :, self.positions]  # [R, B, A, D]
        return [
            (self.difference - self._difference(x) if kind is Answer.LOGIT_DIFFERENCE else self._kl(x)).sum(-1)
            for kind in self.kinds
        ]

    def _difference(self, x: Tensor) -> Tensor:
        return (self.components.final(x).float() * self.direction).sum(-1)

    def _kl(self, x: Tensor) -> Tensor:
        ablated = logits_of(self.components, x).float().log_softmax(-1)  # [R, B, A, vocabulary]
        return (self.clean.exp() * (self.clean - ablated)).sum(-1)


class AnswerSums:
    """Effects of every source on the answer, by prompt group."""

    def __init__(self, kinds: tuple[Answer, ...], n_sources: int, device: torch.device):
        self.kinds = kinds
        self.sums = torch.zeros(len(kinds), GROUPS, n_sources, dtype=torch.float64, device=device)
        self.prompts = np.zeros(n_sources, dtype=np.int64)

    def add(self, source: slice, effects: list[Tensor], group: Tensor) -> None:
        """Add what `CleanAnswer.effects` gives for a slice of sources, on B prompts whose groups are int64 [B]."""
        for number, effect in enumerate(effects):
            self.sums[number, :, source] += by_group(effect.T, group)  # [R, B] -> [GROUPS, R]
        self.prompts[source] += len(group)

    def means(self, answers: int) -> dict[Answer, np.ndarray]:
        """Average over the answers, so many in a group: float64 [GROUPS + 1, sources] of each kind, with replicates."""
        counts = leave_one_out(np.full(GROUPS, float(answers)))[:, None]
        sums = self.sums.cpu().numpy()
        return {kind: leave_one_out(sums[number]) / counts for number, kind in enumerate(self.kinds)}
