"""Conversations on disk: one SQLite file and a folder of images; visitors are known only by the hash of their secret."""
