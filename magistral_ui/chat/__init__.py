"""What is said: pure values and functions, without torch, gradio or input and output."""
