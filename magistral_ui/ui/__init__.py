"""What people see: the only folder that imports gradio."""
