"""Live tagging: many streams at once, from sockets, cameras and microphones."""
