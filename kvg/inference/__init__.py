"""Requests to a model, behind a server or loaded here."""
