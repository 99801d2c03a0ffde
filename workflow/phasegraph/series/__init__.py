"""Which checkpoints: training the embedded series, fetching one from a hub, auditing any, and its manifest.

- embedded: `recipe` says what is trained, `batches` on which data, `optimiser` how one step is made, `training` which
  steps are made and kept, `store` where they lie
- hub: `grids` say which revisions there are, `pins` which commits they were, `hub` brings one, by `listing`,
  `downloads` and `convert`
- audit: `weights` reads any checkpoint, `audit` lists what is wrong with each, by `suspects` and `line`
- `steps` says which steps are wanted, `manifest` what a series consists of

Only `optimiser` imports torch; `convert` and `weights` do for files that need it.
"""
