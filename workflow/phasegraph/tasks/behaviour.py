"""How a model behaves on the induction task: losses, accuracy, and what its heads attend to."""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from phasegraph.groups import group_of, leave_one_out
from phasegraph.tasks.induction import Task
from phasegraph.types import GROUPS

LOGITS_PER_PASS = 2**24
"""Bound on the logits that are computed at once; a large vocabulary then takes fewer prompts at a time."""


@torch.inference_mode()
def behaviour(model: PreTrainedModel, task: Task) -> dict[str, np.ndarray]:
    """Measure a model's behaviour, with leave-one-group-out replicates.

    Parameters
    ----------
    model
        A causal language model with eager attention, which gives its patterns.
    task
        Its prompts.

    Returns
    -------
    dict of str to ndarray of float64
        - ``loss_first``, ``loss_second`` [GROUPS + 1]: mean cross-entropy in nats of the first copy's tokens and of
          the second copy's (without its first token, which nothing announces);
        - ``accuracy`` [GROUPS + 1]: share of the same tokens of the second copy that are predicted best;
        - ``prefix_matching`` [GROUPS + 1, L, H]: mean attention from a token of the second copy to the token that
          followed its first occurrence (Olsson et al. 2022, "In-context learning and induction heads");
        - ``previous_token`` [GROUPS + 1, L, H]: mean attention to the token before.
    """
    at_once = max(1, LOGITS_PER_PASS // (task.tokens.shape[1] * model.config.vocab_size))
    passes = [_by_prompt(model, part, task) for part in torch.from_numpy(task.tokens).to(model.device).split(at_once)]
    group = group_of(len(task.tokens))
    result = {}
    for name in passes[0]:
        values = np.concatenate([part[name] for part in passes]).astype(np.float64)  # [P, ...]
        by_group = np.stack([values[group == k].sum(0) for k in range(GROUPS)])
        counts = leave_one_out(np.bincount(group).astype(np.float64))
        result[name] = leave_one_out(by_group) / counts.reshape(-1, *[1] * (values.ndim - 1))
    return result


def _by_prompt(model: PreTrainedModel, tokens: Tensor, task: Task) -> dict[str, np.ndarray]:
    output = model(tokens, output_attentions=True, use_cache=False)
    logits = output.logits.float()  # [P, T, vocabulary]
    start, segment = task.first_position, task.segment
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    right = logits[:, :-1].argmax(-1) == tokens[:, 1:]
    second = slice(start + segment, None)  # predictions made from the second copy's first token on
    first = slice(0, start + segment - 1)
    positions = torch.arange(tokens.shape[1])
    from_second, from_any = positions[start + segment :], positions[start + 1 :]
    stacked = torch.stack(output.attentions, dim=1).float()  # [P, L, H, T, T]; row = the token that attends
    values = {
        "loss_first": loss[:, first].mean(1),
        "loss_second": loss[:, second].mean(1),
        "accuracy": right[:, second].float().mean(1),
        "prefix_matching": stacked[..., from_second, from_second - segment + 1].mean(-1),
        "previous_token": stacked[..., from_any, from_any - 1].mean(-1),
    }
    return {name: value.cpu().numpy() for name, value in values.items()}
