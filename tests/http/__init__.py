"""Tests of mcpgate.http."""
