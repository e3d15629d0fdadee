"""Questions, predictions and their scores."""
