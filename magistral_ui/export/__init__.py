"""Conversations as files: JSON and back, Markdown, and one self-contained HTML page; bytes and text only, no disk."""
