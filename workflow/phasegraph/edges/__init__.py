"""Stage edges: ablate every node of a checkpoint and measure what that does to every other node."""
