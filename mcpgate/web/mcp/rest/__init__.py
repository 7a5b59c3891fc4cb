"""The OpenAPI face: the tools of a server or group as REST."""
