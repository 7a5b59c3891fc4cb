"""The front door: HTTP towards clients."""
