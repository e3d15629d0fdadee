"""One wrapper of vision-language models, composed of a family; ``families`` holds a file for each."""
