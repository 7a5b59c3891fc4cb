"""Tests of mcpgate.web.pages."""
