"""Tests of mcpgate.web.wire."""
