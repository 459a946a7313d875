"""Texts in all languages: which languages there are, their texts and their plural forms."""
