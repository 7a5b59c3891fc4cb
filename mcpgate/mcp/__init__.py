"""The language room: MCP and JSON-RPC as values. Sans-IO, standard library only."""
