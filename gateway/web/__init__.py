"""The listeners: routes, the client's side of an answer, and the rendering of errors."""
