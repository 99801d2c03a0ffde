"""What the graph of a checkpoint looks like: metrics, node scores, roles, and distances between checkpoints.

Everything is computed on the estimate and on its 16 leave-one-group-out replicates, and gets its interval from them.
"""
