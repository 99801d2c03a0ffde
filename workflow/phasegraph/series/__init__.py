"""Which checkpoints: training the embedded series, and the manifest of any series.

`recipe` says what is trained, `batches` on which data, `optimiser` how one step is made, `training` which steps are
made and kept, `store` where they lie, `steps` which are wanted, `manifest` what a series consists of.
Only `optimiser` imports torch.
"""
