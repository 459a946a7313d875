"""The engine for GGUF files: llama.cpp in a child process, driven with token ids, below our own prompt, reader and control."""
