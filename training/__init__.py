"""Trains the demo model, and makes the data for it; nothing of this is needed to run the app."""
