"""The LightningCLI behind ``kvg``, and the checks before a model is loaded."""
