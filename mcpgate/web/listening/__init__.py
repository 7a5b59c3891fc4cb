"""Where clients come in: listeners, TLS and certificates, PROXY protocol, the redirect to HTTPS."""
