"""The local engine: runs the model in this process."""
