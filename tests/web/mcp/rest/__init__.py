"""Tests of mcpgate.web.mcp.rest."""
