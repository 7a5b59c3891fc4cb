"""The MCP endpoint: sessions of clients carried over stdio and HTTP servers."""
