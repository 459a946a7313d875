"""Conversations, prompts and replies as values and pure functions; no torch, no gradio and, but for decoding images, no I/O."""
