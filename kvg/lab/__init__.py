"""The lab: a small world of drawings in which the knowledge of a model is known exactly."""
