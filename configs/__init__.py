"""Training configs, one file a stage; each can be run from the command in its docstring."""
