"""One file a family of models, named after its ``model_type`` in transformers."""
