"""A user's mistake is one line that names the way out, never a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from phasegraph.usage import usage_told


class PhasegraphError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the file, the key or the checkpoint, and what to do about it.
    """


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `PhasegraphError` into one line on standard error and exit status 1; in a log, tell what was used.

    Examples
    --------
    >>> with user_errors():
    ...     pass
    """
    with usage_told():
        try:
            yield
        except PhasegraphError as error:
            print(f"phasegraph: error: {error}", file=sys.stderr)
            sys.exit(1)


def first_line(error: Exception) -> str:
    """Give the first line of what an error says, or its type if it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
