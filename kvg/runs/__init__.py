"""The folder of a training run: checkpoints, and saving on interruption."""
