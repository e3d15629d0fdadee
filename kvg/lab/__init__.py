"""The lab: a small drawn world in which the knowledge of a model is known exactly."""
