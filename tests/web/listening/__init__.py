"""Tests of mcpgate.web.listening."""
