"""Tests of mcpgate.mcp."""
