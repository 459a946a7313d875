"""The page, and the API beside it."""
