"""Several servers at one address: asked as if they were one server of the modern era."""
