"""Questions about pictures, put to a model: behind a server, or loaded here."""
