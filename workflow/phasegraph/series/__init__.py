"""Which checkpoints: training the embedded series, fetching one from a hub, auditing any, and its manifest.

- embedded: `recipe` says what is trained, `batches` on which data, `optimiser` how one step is made, `training` which
  steps are made and kept, `store` where they lie
- hub: `grids` say which revisions there are, `pins` which commits they were, `hub` brings one, by `listing`,
  `downloads` and `convert`; `fault` stands in the place of one that cannot be had; `tokenizer`
- directory: `directory` finds what somebody else wrote
- `steps` says which steps are wanted, `plan` what a series' configuration means, `layout` the files of a checkpoint
- audit: `weights` reads any checkpoint, `audit` lists what is wrong with each, by `suspects` and `line`; `manifest`
  writes it down, `table` and `used` read it

Only `optimiser` imports torch; `convert` does for pickled files and float8.
"""
