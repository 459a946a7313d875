"""The available languages, their texts and their plural forms."""
