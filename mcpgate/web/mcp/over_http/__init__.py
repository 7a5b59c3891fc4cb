"""Legacy sessions on servers that speak Streamable HTTP."""
