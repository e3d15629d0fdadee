"""Questions, answers and what they are worth: scoring, figures with their noise, failure signatures, other tests."""
