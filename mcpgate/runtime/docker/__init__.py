"""Servers in containers, through the Docker engine (or what speaks its language)."""
