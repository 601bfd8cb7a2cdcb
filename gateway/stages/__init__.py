"""The steps of a request, a module each; none of them knows another."""
