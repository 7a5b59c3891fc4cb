"""Tests of mcpgate.service."""
