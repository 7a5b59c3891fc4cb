"""Legacy sessions on stdio servers."""
