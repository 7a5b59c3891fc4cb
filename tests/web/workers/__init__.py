"""Tests of mcpgate.web.workers."""
