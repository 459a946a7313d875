"""The texts of the page in all languages: which there are, what is written, and their plural forms."""
