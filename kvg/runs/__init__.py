"""The folder of a training run: its checkpoints, and what an interruption leaves there."""
