"""Tests of mcpgate.telemetry."""
