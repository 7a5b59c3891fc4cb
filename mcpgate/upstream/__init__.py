"""The back door: speaking to one MCP server, over HTTP or stdio."""
