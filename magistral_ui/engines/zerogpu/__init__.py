"""The engine on a ZeroGPU Space, where a GPU is lent to a forked process for seconds: asks for it, and puts replies together."""
