"""Tests of mcpgate.cli."""
