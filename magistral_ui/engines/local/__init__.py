"""The in-process engine: the only folder that imports torch and transformers."""
