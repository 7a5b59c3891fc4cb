"""Tests of mcpgate.worker."""
