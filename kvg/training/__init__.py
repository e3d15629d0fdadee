"""The LightningCLI of ``kvg``, and the checks that run before a model is loaded."""
