"""`gateway worker`: one of the processes that `gateway supervise` keeps."""

from __future__ import annotations

import click

from gateway.app.post import Post
from gateway.app.worker import work
from gateway.cli.again import Plain
from gateway.cli.configuration import config_option, load_or_end
from gateway.cli.starting import told_to_people

EXAMPLE = """Example: gateway worker -c config/gateway.yaml '{"worker":1,"port":8080,"socket":"/tmp/1.sock"}'"""


@click.command(hidden=True, epilog=EXAMPLE)
@config_option
@click.argument("post", type=Plain(Post))
def worker(config: str, post: Post) -> None:
    """Serve as one of several processes.

    The supervisor starts it, with a socket for its orders as standard input.
    """
    settings = load_or_end(config).settings
    with told_to_people():
        work(post, config, settings)
