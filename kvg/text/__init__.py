"""What is said to the model and by it: prompts, box conventions, completions."""
