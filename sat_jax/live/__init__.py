"""Live sound: cameras, microphones and other streams that never end."""
