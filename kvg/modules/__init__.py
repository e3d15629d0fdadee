"""The stages as LightningModules; no maths of their own."""
