"""Magistral UI: talk to Mistral's Magistral reasoning models in a browser. Importing it does nothing."""

__version__ = "0.1.0"
