"""Stage report: figures of a study, and one page that says in words what they show.

``catalogue`` names the figures, ``figures/<name>`` draws one of them, ``sentences`` and ``findings`` put numbers into
words, and ``page`` puts everything together.
"""
