"""Rationales: facts of entities, the writer of templates, and the teacher model."""
