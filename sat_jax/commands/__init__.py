"""The sub-commands of sat-jax, one file each: flags and a short main."""
