"""What ``phases.json`` says, in whole sentences for every case: found, not found, not tested."""

from phasegraph.phases.sentences import few_checkpoints
from phasegraph.report.evidence import Boundary, boundaries, tested, transition
from phasegraph.report.words import at_steps, listed, measured, number, plural, probability, steps_range

QUANTITIES = {"loss_second": "the loss of the second copy", "prefix_matching": "the largest prefix-matching score"}


def verdict(phases: dict) -> list[str]:
    """Say what the tests found: the first paragraph of the report.

    Parameters
    ----------
    phases
        Contents of ``phases.json``.

    Returns
    -------
    list of str
        Sentences. The first is about test B, the only one that tells phases from smooth drift.
    """
    if not tested(phases):
        count = phases["checkpoints"]["n"]
        few = (
            f"{plural(count, 'checkpoint')} {'is' if count == 1 else 'are'} too few for two regimes and a smooth trend"
        )
        return [f"Phases were not tested: {few}. Nothing on this page speaks for or against them."]
    return [_smooth_or_not(phases), *few_checkpoints(phases), *_regimes(phases), *_beside_behaviour(phases)]


def _smooth_or_not(phases: dict) -> str:
    found = phases["test_b"]
    test = "test B, which allows for a smooth trend along the path of the weights,"
    if not found["boundaries"]:
        p_value, level = probability(found["p_values"][0]), phases["settings"]["alpha"]
        return (
            f"Smooth drift suffices to describe how the wiring changes over this run: {test} finds no jump of the "
            f"rates of change ({p_value}, level {level:g})."
        )
    jumps = f"{'a jump' if len(found['boundaries']) == 1 else 'jumps'} of the rates of change"
    places = listed(_place(jump, "") for jump in found["boundaries"])
    return f"Smooth drift does not suffice: {test} finds {jumps} at {places}."


def _regimes(phases: dict) -> list[str]:
    found = phases["test_a"]
    asks = "Test A, which looks for different levels of these rates in autocorrelated noise,"
    if not found["boundaries"]:
        return [f"{asks} finds no boundary ({probability(found['p_values'][0])})."]
    places = listed(_place(boundary, boundary["kind"]) for boundary in found["boundaries"])
    count = len(found["boundaries"])
    begin = "a new one begins" if count == 1 else "new ones begin"
    sentences = [f"{asks} divides the run into {count + 1} regimes: {begin} at {places}."]
    if gradual := sum(boundary["kind"] == "gradual" for boundary in found["boundaries"]):
        what = "the gradual boundary is" if gradual == 1 else "gradual boundaries are"
        sentences.append(f"A smooth process would be divided too: {what} a description and no evidence of phases.")
    return sentences


def limit_text(phases: dict) -> str:
    """Say that the search of test A stopped at its limit, and what a higher one gives; empty if it did not."""
    count, settings = len(phases["test_a"]["boundaries"]), phases["settings"]
    if count < settings["max_changes"]:
        return ""
    stopped = f"The search of test A stopped at its limit of {plural(count, 'boundary')}"
    for row in phases["sensitivity"]:
        if row["max_changes"] > count and row["min_size"] == settings["min_size"] and row["test_a"]:
            more = row["test_a"]["changes"]
            finds = "no more" if more == count else f"{more}"
            return f"{stopped}; allowed {row['max_changes']}, it finds {finds}."
    return f"{stopped}, so that the number of regimes is not identified."


def _beside_behaviour(phases: dict) -> list[str]:
    """Set the boundaries beside the transition of behaviour."""
    change, found = transition(phases), boundaries(phases)
    if change is None:
        return ["No transition of behaviour is dated: the loss of the second copy leaves no plateau for good."]
    when = f"Behaviour changes at steps {steps_range(change.start, change.end)}"
    if not found:
        return [f"{when}."]
    near = set(phases["behaviour"]["agreement"]["boundaries_at_transition"] or [])
    inside = [b for b in found if b.step in near or change.start <= b.step <= change.end]
    before = [b for b in found if b not in inside and b.step < change.start]
    after = [b for b in found if b not in inside and b.step > change.end]
    reach = phases["settings"]["near_checkpoints"]
    places = [
        _boundaries_lie(inside, f"in that transition or within {plural(reach, 'checkpoint')} of it"),
        _boundaries_lie(before, "before it"),
        _boundaries_lie(after, "after it"),
    ]
    sentences = [f"{when}: {listed(place for place in places if place)}."]
    if any(b.abrupt for b in found) and not any(b.abrupt for b in inside):
        sentences.append("No jump is found there: around the change of behaviour, smooth drift suffices.")
    return sentences


def _boundaries_lie(found: list[Boundary], where: str) -> str:
    if not found:
        return ""
    several = len(found) > 1
    noun, verb = ("boundaries", "lie") if several else ("boundary", "lies")
    kinds = {"abrupt" if b.abrupt else "gradual" for b in found}
    kind = f"{kinds.pop()} " if len(kinds) == 1 else ""
    return f"the {kind}{noun} at {at_steps(b.step for b in found)} {verb} {where}"


def transition_text(phases: dict) -> str:
    """Say when behaviour changes, by the loss alone."""
    change = transition(phases)
    if change is None:
        return (
            "The loss of the second copy leaves no plateau for good, so that no transition of behaviour is dated "
            "(there may be none, or it may lie outside the checkpoints)."
        )
    levels = phases["behaviour"]["transition"]
    return (
        f"The loss of the second copy falls from a plateau of {number(levels['plateau'])} nats to "
        f"{number(levels['final'])} nats; 10 % of the fall are done by step {change.start:,}, half of it by step "
        f"{change.half:,} and 90 % by step {change.end:,}. This transition is dated by the loss alone."
    )


def agreement_texts(phases: dict) -> list[str]:
    """Say where the same test finds changes in the speed of behaviour, and whether structure agrees with chance."""
    behaviour = phases.get("behaviour") or {}
    texts = []
    for quantity, found in (behaviour.get("boundaries") or {}).items():
        name = QUANTITIES.get(quantity, quantity)
        if not found:
            texts.append(f"The same test finds no change in the speed of {name}.")
            continue
        places = listed(_place(boundary, "") for boundary in found)
        text = f"The same test finds {'a change' if len(found) == 1 else 'changes'} in the speed of {name} at {places}."
        text += _matches_text(phases, behaviour["agreement"]["matches"][quantity], len(found))
        texts.append(text)
    return texts


def lead_lag_texts(phases: dict) -> list[str]:
    """Say of each behaviour whether structure moves before it; nothing where there are too few checkpoints."""
    leads = phases["behaviour"]["lead_lag"] or {}
    return [_lead_text(quantity, found, phases["settings"]["alpha"]) for quantity, found in leads.items() if found]


def _lead_text(quantity: str, found: dict, level: float) -> str:
    low, high = found["interval"] or (None, None)
    both = f"The changes of {found['structure']} and of {QUANTITIES.get(quantity, quantity)}"
    numbers = (
        f"largest correlation {number(found['correlation'], 2)}, at a lag of {measured(found['lag'], low, high, 2)} "
        f"checkpoints, positive where structure moves first; {probability(found['p_value'])}, "
        f"{probability(found['p_bonferroni'])} corrected for the number of comparisons"
    )
    if found["p_bonferroni"] > level:
        return (
            f"{both} do not go together more than chance gives ({numbers}), so that nothing can be said of which comes "
            "first."
        )
    if low is None or low <= 0 <= high:
        verdict = "which of them moves first is open"
    else:
        near = probability(found["p_timing"])
        verdict = (
            f"{'structure' if low > 0 else 'behaviour'} moves first ({near} of two unrelated events being as near)"
        )
    return f"{both} go together ({numbers}): {verdict}."


def _matches_text(phases: dict, match: dict, changes: int) -> str:
    """Say how many structural boundaries are near the changes of one behaviour; empty if there is no boundary."""
    count, of = match["matches"], len(phases["test_a"]["boundaries"])
    if count is None:
        return ""
    near = f"within {plural(phases['settings']['near_checkpoints'], 'checkpoint')} of {'it' if changes == 1 else 'one'}"
    if of == 1:
        text = f" The structural boundary {'lies' if count else 'does not lie'} {near}"
    else:
        several = {0: "None", 1: "One"}.get(count, f"{count}")
        text = f" {several} of the {of} structural boundaries {'lies' if count < 2 else 'lie'} {near}"
    if not count:
        return f"{text}."
    by_chance, corrected = match["p_value"], match["p_bonferroni"]
    return (
        f"{text} ({probability(by_chance)} against boundaries shifted around the run, {probability(corrected)} "
        "corrected for the number of comparisons)."
    )


def left_out_text(phases: dict) -> str:
    """Name the checkpoints that the change tests leave out, and why; empty if there are none."""
    dropped = phases["checkpoints"].get("dropped") or []
    if not dropped:
        return ""
    return f"The change tests leave out {listed('step {step} ({why})'.format(**one) for one in dropped)}."


def _place(boundary: dict, kind: str) -> str:
    """Write a boundary's step, and in brackets its kind, its 90 % interval if that is more than the step, and its p."""
    low, high = boundary["interval_steps"]
    interval = f"90 % interval {steps_range(low, high)}" if low != high else ""
    parts = [part for part in (kind, interval, probability(boundary["p_value"])) if part]
    return f"step {boundary['step']:,} ({', '.join(parts)})"
