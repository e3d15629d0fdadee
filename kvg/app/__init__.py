"""A page for a browser that shows how models find an entity (``kvg app``); only ``page`` and ``serve`` need Gradio."""
