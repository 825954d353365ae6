"""Files, command lines, devices, sharding and compiled programs."""
