"""The engine behind which another program runs the model: servers that speak OpenAI's chat completions."""
