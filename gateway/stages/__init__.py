"""The steps of a request, one module each. They do not know one another."""
