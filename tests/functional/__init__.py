"""Tests with real sockets, processes and servers; each skips with a reason where it cannot run."""
