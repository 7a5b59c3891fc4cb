"""Tests of mcpgate, mirroring its folders."""
