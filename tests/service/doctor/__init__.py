"""Tests of mcpgate.service.doctor."""
