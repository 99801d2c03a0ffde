"""Train a recipe at the asked steps, going on from what an earlier run has left.

Which steps are kept changes no weight, because every batch depends on the recipe and the step alone. So a step that
is there is never made again, and a new one costs the updates from the nearest earlier optimiser state on.
torch is imported only if there is something to train.
"""

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.series.recipe import Recipe
from phasegraph.series.store import Store, alone

if TYPE_CHECKING:
    from phasegraph.series.optimiser import Learner

logger = logging.getLogger(__name__)

STATE_EVERY = 143
"""Steps between two optimiser states: the most that an interruption can cost."""

SPEED = 60e9
"""Floating-point operations per second of one core, for the announced duration only."""


def train(
    recipe: Recipe,
    steps: Iterable[int],
    store: str | Path,
    *,
    code: str = "",
    log: str | Path | None = None,
    state_every: int = STATE_EVERY,
) -> Path:
    """Make sure that the checkpoints of some steps are in the store.

    Interrupted anywhere and called again, it gives the same bytes as an undisturbed run. Stores of other recipes,
    software or code beside this one are removed at the end, so two series need two folders.

    Parameters
    ----------
    recipe
        What is trained.
    steps
        Numbers of updates after which the weights are wanted; 0 is the initial model.
    store
        Folder of the stores (see `phasegraph.series.store`).
    code
        Digest of the training code, if edited code shall train anew.
    log
        Where to write the table of all steps ever made, or None: step, tokens, learning_rate and loss (nats per
        token of the training batch, before the update).
    state_every
        Steps between two kept optimiser states.

    Returns
    -------
    Path
        The folder that holds ``<step>/config.json`` and ``<step>/model.safetensors``.

    Raises
    ------
    PhasegraphError
        If a step lies beyond the recipe's, or the training diverges.
    """
    steps = sorted(set(steps))
    if not steps or steps[0] < 0 or steps[-1] > recipe.steps:
        raise PhasegraphError(f"steps must be among 0..{recipe.steps} (recipe.steps), not {steps[:1]}..{steps[-1:]}")
    if state_every < 1:
        raise PhasegraphError(f"state_every must be at least 1, not {state_every}")
    with alone(store):
        shelf = Store(store, recipe, code)
        missing = {step for step in steps if not shelf.holds_step(step)}
        unlogged = set(range(1, steps[-1] + 1)) - shelf.losses.keys()
        segments = plan(missing | unlogged, shelf.states())
        if segments:
            _make(recipe, shelf, segments, missing, state_every)
        else:
            logger.info("all %d checkpoints are in %s", len(steps), shelf.folder)
        shelf.commit()
        shelf.remove_others()
    if log is not None:
        _write_log(recipe, shelf, Path(log))
    return shelf.folder


def plan(targets: Iterable[int], states: Iterable[int]) -> list[tuple[int, int]]:
    """Stretches of training that reach every target with the fewest updates.

    Parameters
    ----------
    targets
        Steps to be reached.
    states
        Steps from which the training can go on; 0 needs none.

    Returns
    -------
    list of (int, int)
        First and last step of each stretch, in order.
    """
    starts = {0, *states}
    segments: list[tuple[int, int]] = []
    for target in sorted(targets):
        start = max(start for start in starts if start <= target)
        if segments and start <= segments[-1][1]:
            segments[-1] = (segments[-1][0], target)
        else:
            segments.append((start, target))
    return segments


def _make(recipe: Recipe, shelf: Store, segments: list[tuple[int, int]], missing: set[int], state_every: int) -> None:
    """Train the stretches; save the missing checkpoints and the optimiser states on the way."""
    total = sum(stop - start for start, stop in segments)
    seconds = 6 * recipe.parameters * recipe.tokens_per_step * total / SPEED  # 6 operations per weight and token
    logger.info(
        "training %s: %d updates of %s tokens (%d layers, %s weights) for %d checkpoints; about %.0f s of one core, "
        "and some seconds to import torch",
        shelf.folder.name, total, f"{recipe.tokens_per_step:,}", recipe.layers, f"{recipe.parameters:,}", len(missing),
        seconds,
    )  # fmt: skip
    shelf.begin()
    from phasegraph.series.optimiser import Learner, reproducible

    done, began = 0, time.monotonic()
    with reproducible(recipe):
        for start, stop in segments:
            learner = Learner(recipe, start, shelf.read(_state(start)) if start else None)
            _save(shelf, learner, missing, state_every)
            while learner.step < stop:
                row = learner.update()
                shelf.losses[learner.step] = row
                _save(shelf, learner, missing, state_every)
                done += 1
                if done * 10 // total > (done - 1) * 10 // total:
                    _report(recipe, shelf, learner.step, done, total, time.monotonic() - began)
    logger.info("trained in %.0f s: %d checkpoints in %s", time.monotonic() - began, len(missing), shelf.folder)


def _save(shelf: Store, learner: "Learner", missing: set[int], state_every: int) -> None:
    step = learner.step
    keeps_state = 0 < step < learner.recipe.steps and step % state_every == 0 and not shelf.holds(_state(step))
    if step in missing:
        for name, data in learner.checkpoint().items():
            shelf.write(f"{step}/{name}", data)
    if keeps_state:
        shelf.write(_state(step), learner.state())
    if step in missing or keeps_state:
        shelf.commit()


def _state(step: int) -> str:
    return f"states/{step}.pt"


def _report(recipe: Recipe, shelf: Store, step: int, done: int, total: int, seconds: float) -> None:
    logger.info(
        "step %d of %d: loss %.3f, %s tokens/s, %.0f s left",
        step, recipe.steps, shelf.losses[step][1], f"{done * recipe.tokens_per_step / seconds:,.0f}",
        (total - done) * seconds / done,
    )  # fmt: skip


def _write_log(recipe: Recipe, shelf: Store, path: Path) -> None:
    rows = [
        f"{step}\t{step * recipe.tokens_per_step}\t{rate:.6g}\t{loss:.6f}\n"
        for step, (rate, loss) in sorted(shelf.losses.items())
    ]
    with atomic(path) as temporary:
        temporary.write_text("step\ttokens\tlearning_rate\tloss\n" + "".join(rows))
