"""The lab: a small drawn world in which it is a fact what a model knows."""
