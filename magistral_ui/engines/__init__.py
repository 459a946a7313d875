"""What runs a model: the one seam (`base`), and the engines behind it."""
