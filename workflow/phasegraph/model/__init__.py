"""Stage model: a checkpoint folder becomes a runnable model with named nodes and a mask of possible edges."""
