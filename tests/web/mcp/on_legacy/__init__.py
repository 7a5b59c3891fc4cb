"""Tests of mcpgate.web.mcp.on_legacy."""
