"""The byte relay: a server's other paths, event streams and WebSockets."""
