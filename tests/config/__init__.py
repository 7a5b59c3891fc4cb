"""Tests of mcpgate.config."""
