"""The listeners: routes, the client's side of an answer, and the rendering of errors.

`import aiohttp` loads its client, too, and that reads the certificates of every authority that the system trusts into
two TLS contexts for its own connections: 2 MiB. The gateway opens none with it, so they are dropped at once, and what
is imported afterwards fills their place. Code that opens one all the same gets a NameError, and nothing is sent.
"""

import aiohttp.web

for _name in ("_SSL_CONTEXT_VERIFIED", "_SSL_CONTEXT_UNVERIFIED"):
    vars(aiohttp.connector).pop(_name, None)
