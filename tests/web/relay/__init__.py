"""Tests of mcpgate.web.relay.relay."""
