"""Who is talking: visitors, their conversations and their running generations; no gradio, no torch."""
