"""Stage phases: when the wiring reorganises, and whether that is more than smooth drift.

`phasegraph.phases.test` is the change test, `rates` what it is run on, `labels` and `behaviour` put its boundaries into
words and beside what the model can do, and `study` does all of it for one study's tables.
"""
