"""Conversations on disk: one SQLite file and the images beside it; it knows visitors by the hash of their secret only."""
