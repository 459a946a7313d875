"""The engine for models that run on a server with OpenAI's chat completions API."""
