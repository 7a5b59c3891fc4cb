"""Clients of HTTP+SSE (2024-11-05), on every kind of server."""
