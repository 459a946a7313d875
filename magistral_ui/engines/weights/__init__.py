"""Where a model's weights come from, on which devices they go, and in which precision."""
