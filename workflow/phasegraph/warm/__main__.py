"""``python -m phasegraph.warm MODULE ARGS...``."""

from phasegraph.warm.client import main

main()
