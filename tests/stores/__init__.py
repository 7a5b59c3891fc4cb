"""Tests of mcpgate.stores."""
