"""Stage tasks: the prompts that a model is shown, and how it behaves on them."""
