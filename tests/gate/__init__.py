"""Tests of mcpgate.gate."""
