"""Tests of `mcpgate.timing`."""
