"""Memory of a training before it runs: its own code, run with tensors that have shapes and no memory."""
