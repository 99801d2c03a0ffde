"""Which training steps a series consists of (read by the Snakefile, so only the standard library is imported)."""

from collections.abc import Mapping, Sequence

from phasegraph.errors import PhasegraphError

REQUIRED = ("start", "stop", "every")


def expand_steps(spec: Mapping[str, object] | Sequence[int], key: str = "steps") -> list[int]:
    """Spell out a schedule of steps.

    Parameters
    ----------
    spec
        Either the steps themselves, or a mapping with ``start``, ``stop`` (included) and ``every``, and optionally
        ``also`` (single steps beside the regular ones).
    key
        What the schedule is called in the user's file, for error messages.

    Returns
    -------
    list of int
        The steps, sorted, each once.

    Raises
    ------
    PhasegraphError
        If a key is unknown or missing, or a value is not a step. The message names the key.

    Examples
    --------
    >>> expand_steps({"start": 4, "stop": 12, "every": 4, "also": [0, 1]})
    [0, 1, 4, 8, 12]
    """
    if not isinstance(spec, Mapping):
        steps = set(_steps(spec, key))
    else:
        for name in spec:
            if name not in (*REQUIRED, "also"):
                raise PhasegraphError(f"{key}.{name} is not known; the keys are {', '.join(REQUIRED)} and also")
        for name in REQUIRED:
            if name not in spec:
                raise PhasegraphError(f"{key}.{name} is missing; give {', '.join(REQUIRED)}, or a plain list of steps")
        start, stop, every = (_step(spec[name], f"{key}.{name}") for name in REQUIRED)
        if every < 1:
            raise PhasegraphError(f"{key}.every must be at least 1, not {every}")
        if stop < start:
            raise PhasegraphError(f"{key}.stop ({stop}) must not lie before {key}.start ({start})")
        steps = {*range(start, stop + 1, every), *_steps(spec.get("also", []), f"{key}.also")}
    if not steps:
        raise PhasegraphError(f"{key} is empty; give at least one step")
    return sorted(steps)


def _steps(value: object, key: str) -> list[int]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise PhasegraphError(f"{key} must be a list of steps, not {value!r}")
    return [_step(item, key) for item in value]


def _step(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PhasegraphError(f"{key} must hold whole numbers from 0 on, not {value!r}")
    return value
