"""Tests of mcpgate.web.mcp."""
