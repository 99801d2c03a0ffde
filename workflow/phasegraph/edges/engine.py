"""The ablation engine: every node's effect on every other node, in a few calls of each layer.

An ablation in layer l leaves all layers up to l alone. So the engine walks through the layers once, carrying one
residual stream per ablation of an earlier layer: layer l is called with 1 + l (H + 1) streams. A new ablation starts
as the clean residual stream after its layer less what the node contributed. The direct effect needs the same calls:
there, layer l reads the clean stream less the contribution of one earlier node. Between neighbouring layers of parallel
blocks nothing lies in between, so both effects are the same number, and it is computed once.
"""

import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from phasegraph.edges.answer import AnswerSums, CleanAnswer
from phasegraph.edges.layout import Layout
from phasegraph.edges.memory import BUDGET, Cuts, cut, usual_tokens
from phasegraph.edges.passes import (
    Clean,
    Outputs,
    Readout,
    clean_pass,
    mean_outputs,
    random_of_same_length,
    taken_away,
)
from phasegraph.edges.retry import Cutter, in_pieces_that_fit
from phasegraph.edges.sums import Sums, Targets, Variance
from phasegraph.edges.walks import Changed, Sources, walk_direct, walk_total
from phasegraph.errors import PhasegraphError
from phasegraph.groups import group_of
from phasegraph.model.components import Components
from phasegraph.model.nodes import mask_of, nodes_of
from phasegraph.tasks.induction import Task
from phasegraph.types import GROUPS, Answer, Effect, Intervention, Kind, Measurement

ALL = ""
"""Name of the span of all measured positions."""

DEFAULT = Measurement()


@torch.inference_mode()
def measure_edges(
    components: Components,
    task: Task,
    measurement: Measurement = DEFAULT,
    *,
    memory_budget: int = BUDGET,
    tokens_per_call: int | None = None,
) -> dict[str, np.ndarray]:
    """Measure the influence of every node on every other.

    Parameters
    ----------
    components
        The model.
    task
        The prompts, P of them with T positions; P is a multiple of GROUPS, and group k holds the k-th P / GROUPS.
    measurement
        What is measured.
    memory_budget
        Bytes for the engine's tensors, besides the weights. Where there are fewer, it is halved until they suffice.
    tokens_per_call
        Tokens with which a layer is called at once, None for what suits the device. Both change the speed, and of the
        result the last bits (edges by some 1e-7 of themselves), since matrix products of other sizes round otherwise.

    Returns
    -------
    dict of str to ndarray of float32
        Index 0 of the first axis is the estimate, 1 ... GROUPS leave out one group of prompts. Edges are
        [GROUPS + 1, N, N], row = source, column = target; 0 where no edge can be, NaN where the measure is undefined:

        - ``total`` and, if measured, ``direct``;
        - ``total.first``, ``direct.second``, ...: in one position group of the task alone;
        - ``direct.q``, ``direct.k``, ``direct.v``: only this input of each head changes (0 for other targets);
        - ``control.total``, ``control.direct``: with random vectors of the same length in the place of what the
          intervention takes away.

        ``answer.<kind>.<effect>``, [GROUPS + 1, N], is what each source does to the answer (0 for the logits).

    Raises
    ------
    PhasegraphError
        If the model's outputs are not finite, an intervention did not change what it should, or the memory budget or
        the memory is too small for a single prompt.
    ValueError
        If the prompts do not form GROUPS groups of equal size.
    """

    def measure(cuts: Cuts) -> _Run:
        run = _Run(components, task, measurement, cuts)
        for part in torch.arange(len(task.tokens)).split(cuts.prompts):
            run.measure(part)
        return run

    tokens = tokens_per_call or usual_tokens(components.unembedding.device)
    run = in_pieces_that_fit(measure, _cutter(components, task, measurement), memory_budget, tokens)
    run.check()
    return run.results()


def _cutter(components: Components, task: Task, measurement: Measurement) -> Cutter:
    """Prepare `cut` for what is measured: a memory budget and the tokens in a call then give the sizes of pieces."""
    prompts, length = task.tokens.shape
    weights = components.head_weights[0]
    return partial(
        cut,
        components,
        prompts=prompts,
        length=length,
        width=weights.shape[-1],
        sources=components.n_layers * (components.n_heads + 1) + measurement.embed,
        answers=len(task.answer_positions) if Answer.KL in measurement.answer else 0,
        item=weights.element_size(),
    )


@dataclass(frozen=True)
class _Effects:
    """What one kind of ablation does: to the nodes by effect, to single inputs, to the answer."""

    edges: dict[Effect, Sums]
    inputs: dict[str, Sums]
    answers: dict[Effect, AnswerSums]


class _Run:
    """All sums of one measurement, and how they are filled."""

    def __init__(self, components: Components, task: Task, measurement: Measurement, cuts: Cuts):
        self.components, self.task, self.measurement, self.cuts = components, task, measurement, cuts
        ends = {"embed": measurement.embed, "logits": measurement.logits}
        self.layout = Layout(components.n_layers, components.n_heads, **ends)
        self.nodes = nodes_of(components.n_layers, components.n_heads, **ends)
        self.mask = mask_of(self.nodes, components.parallel)
        self.device = components.unembedding.device
        self.tokens = torch.as_tensor(task.tokens).to(self.device)  # [P, T]
        self.group = torch.as_tensor(group_of(len(task.tokens))).to(self.device)  # [P]
        self.spans = {ALL: slice(task.first_position, self.tokens.shape[1])}
        if measurement.by_position:
            self.spans |= task.positions
        self.readout = Readout(components) if measurement.logits else None
        reference = torch.as_tensor(task.reference).to(self.device)
        self.means = mean_outputs(components, reference, task.first_position, self.cuts.prompts, self.readout)
        self.variance = Variance(self.layout, self.spans, self.device)
        self.own = self._effects(inputs=measurement.qkv)
        self.control = self._effects(inputs=False) if measurement.control else None
        # squared length of what each ablation takes away, and of the change that the residual stream then shows
        self.taken, self.shown = np.zeros(self.layout.sources), np.zeros(self.layout.sources)

    def measure(self, part: Tensor) -> None:
        """Ablate every node on the prompts with these indices, int64 [B]."""
        components = self.components
        group = self.group[part.to(self.device)]
        clean = clean_pass(components, self.tokens[part.to(self.device)])
        if not torch.isfinite(clean.after[-1]).all():
            raise PhasegraphError("the model's outputs are not finite; take this checkpoint out of the series")
        targets = Targets(self.layout, clean, self.means, self.readout)
        self.variance.add(targets, group)
        answer = self._clean_answer(clean, part) if self.measurement.answer else None
        replacement = self._replacement(part)
        for first in range(0, self.layout.sources, self.cuts.sources):
            last = min(first + self.cuts.sources, self.layout.sources)
            sources = Sources(first, last, self.cuts.rows, self.layout)

            def removed(first: int = first, last: int = last) -> Tensor:
                return taken_away(components, clean, replacement, first, last, self.layout)

            def random(first: int = first, removed=removed) -> Tensor:
                return random_of_same_length(removed(), first, part.tolist())

            self._walk(self.own, clean, removed, sources, targets, answer, group)
            if self.control:
                self._walk(self.control, clean, random, sources, targets, answer, group)

    def check(self) -> None:
        """Make sure that every ablation was made on every prompt, and say which of them had nothing to take away.

        Raises
        ------
        PhasegraphError
            If an ablation changed nothing although it took something away.
        """
        names = np.array([node.name for node in self.nodes[: self.layout.sources]])
        for effects in filter(None, (self.own, self.control)):
            for sums in effects.edges.values():
                if not np.array_equal(sums.prompts, np.where(self.mask, len(self.tokens), 0)):
                    raise RuntimeError("the engine did not measure every possible edge on every prompt; report this")
            for sums in effects.answers.values():
                if (sums.prompts != len(self.tokens)).any():
                    raise RuntimeError("the engine did not measure every answer; report this")
        if not self.taken.any():
            raise PhasegraphError(
                f"no ablation takes anything away: {self.measurement.intervention} leaves every node's output as it is"
            )
        idle = self.shown <= 0.25 * self.taken  # with nothing taken away, both are 0
        lost = idle & (self.taken > 0)
        dtype = self.components.unembedding.dtype
        if lost.any() and dtype is not torch.float32:
            raise PhasegraphError(
                f"ablating {', '.join(names[lost])} changes nothing: all is lost to rounding; set dtype: float32"
            )
        if idle.any():  # in float32, what is lost is a constant output less its own mean
            rows = ", ".join(names[idle])
            print(f"nothing to take away from {rows}: the rows of these nodes are zero", file=sys.stderr)

    def results(self) -> dict[str, np.ndarray]:
        """Turn all sums into weights."""
        prompts, result = len(self.tokens), {}
        for prefix, effects in (("", self.own), ("control.", self.control)):
            if effects is None:
                continue
            for effect, sums in effects.edges.items():
                for span, matrix in sums.weights(self.variance, self.mask, prompts).items():
                    result[prefix + effect + (f".{span}" if span else "")] = matrix
            for name, sums in effects.inputs.items():
                mask = self.mask & [node.kind is Kind.HEAD for node in self.nodes]
                result[f"direct.{name}"] = sums.weights(self.variance, mask, prompts)[ALL]
            for effect, sums in effects.answers.items():
                for kind, values in sums.means(prompts // GROUPS * len(self.task.answer_positions)).items():
                    padded = np.pad(values, [(0, 0), (0, self.layout.size - self.layout.sources)])
                    result[f"{prefix}answer.{kind}.{effect}"] = padded.astype(np.float32)
        return result

    def _effects(self, *, inputs: bool) -> _Effects:
        measurement, layout = self.measurement, self.layout
        effects = tuple(Effect) if measurement.direct else (Effect.TOTAL,)
        whole = {ALL: self.spans[ALL]}
        return _Effects(
            edges={e: Sums(measurement.measure, layout, self.spans, self.device) for e in effects},
            inputs={i: Sums(measurement.measure, layout, whole, self.device) for i in ("qkv" if inputs else "")},
            answers={
                e: AnswerSums(measurement.answer, layout.sources, self.device) for e in effects if measurement.answer
            },
        )

    def _clean_answer(self, clean: Clean, part: Tensor) -> CleanAnswer:
        task = self.task
        arrays = (task.answer_positions, task.right[part.numpy()], task.wrong[part.numpy()])
        tokens = (torch.as_tensor(array).to(self.device) for array in arrays)
        return CleanAnswer(self.measurement.answer, self.components, clean.after[-1], *tokens)

    def _replacement(self, part: Tensor) -> Outputs | None:
        """Give what is put in the place of the nodes' outputs on prompts with these indices."""
        match self.measurement.intervention:
            case Intervention.ZERO:
                return None
            case Intervention.MEAN:
                return self.means
            case Intervention.RESAMPLE:
                corrupted = torch.as_tensor(self.task.corrupted[part.numpy()]).to(self.device)
                clean = clean_pass(self.components, corrupted)
                return Outputs(clean.before[0], clean.z, clean.mlp, clean.after[-1])

    def _note(self, clean: Clean, removed: Tensor, sources: Sources) -> None:
        """Remember how much each ablation takes away, and how much of it the residual stream after its layer shows."""
        for layer in range(-1, self.components.n_layers):
            source = slice(sources.start_of(layer), sources.start_of(layer + 1))
            if source.start < source.stop:
                stream = clean.before[0] if layer < 0 else clean.after[layer]
                taken = removed[sources.place(source)]
                for total, change in ((self.taken, taken), (self.shown, stream - (stream - taken))):
                    total[source] += torch.linalg.vector_norm(change.float(), dim=(1, 2, 3)).square().cpu().numpy()

    def _walk(
        self,
        effects: _Effects,
        clean: Clean,
        removed,
        sources: Sources,
        targets: Targets,
        answer: CleanAnswer | None,
        group: Tensor,
    ) -> None:
        """Carry a slab of ablations through the layers, and add what changes to the sums of each effect."""

        def add(effect: Effect, changed: Changed) -> None:
            effects.edges[effect].add(changed.source, targets.compare(changed), group)
            if changed.last is not None and answer:
                effects.answers[effect].add(changed.source, answer.effects(changed.last), group)

        components = self.components
        to_the_end = answer is not None or self.measurement.logits
        shared = components.parallel and Effect.DIRECT in effects.edges and not effects.inputs
        streams = removed()
        if effects is self.own:
            self._note(clean, streams, sources)
        for changed in walk_total(components, clean, streams, sources, to_the_end):
            add(Effect.TOTAL, changed)
            if shared and changed.source.start >= sources.start_of(changed.layer - 1):
                add(Effect.DIRECT, changed)
        if Effect.DIRECT in effects.edges:
            walk = walk_direct(
                components,
                clean,
                removed(),
                sources,
                to_the_end,
                skip_neighbours=shared,
                inputs=bool(effects.inputs),
            )
            for changed in walk:
                add(Effect.DIRECT, changed)
                for name, sums in effects.inputs.items():
                    sums.add(changed.source, targets.by_input(changed, name), group)
