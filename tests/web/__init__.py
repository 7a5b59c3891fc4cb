"""Tests of mcpgate.web."""
