"""What every program needs of its machine: files, flags, devices, compiled programs."""
