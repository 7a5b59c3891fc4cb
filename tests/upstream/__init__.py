"""Tests of mcpgate.upstream."""
