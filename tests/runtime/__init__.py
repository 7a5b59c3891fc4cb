"""Tests of mcpgate.runtime."""
