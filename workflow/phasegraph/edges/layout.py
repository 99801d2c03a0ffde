"""Where nodes stand in the matrices: rows of sources, columns of targets."""


class Layout:
    """Indices of the nodes by layer and kind."""

    def __init__(self, n_layers: int, n_heads: int, *, embed: bool, logits: bool):
        self.n_layers, self.n_heads = n_layers, n_heads
        self.embed, self.logits = embed, logits
        self.size = n_layers * (n_heads + 1) + embed + logits
        self.sources = self.size - logits

    def heads(self, layer: int) -> slice:
        """Columns of a layer's heads."""
        start = self.embed + layer * (self.n_heads + 1)
        return slice(start, start + self.n_heads)

    def mlp(self, layer: int) -> slice:
        """Column of a layer's MLP."""
        end = self.heads(layer).stop
        return slice(end, end + 1)

    @property
    def last(self) -> slice:
        """Column of the logits."""
        return slice(self.size - 1, self.size)
