"""The connections to one upstream, at most `max_connections`: the one that was used last is used first.

A request that may not have a connection waits in line; waiting and connecting share the connect timeout. A team's line
has a bound: a request beyond it is refused at once.

Models and teams share the connections of their upstream. A model that hangs keeps each connection for minutes, and a
team that sends much uses all of them; either would soon have them all. So a model, and likewise a team, may only take
another while it holds less than HELD_PER_FREE times the free ones. This is the dynamic threshold by which switches
share a packet buffer (Choudhury and Hahne, 1998): one alone gets three quarters of the connections, two get three
sevenths each, and the next one finds some free. Who holds least may always take one: free connections are kept only
for those that hold less.

From the line, the team that holds least is served first, of its models the one that holds least, then the request that
has waited longest. So teams that all want more than there is hold equally many, whatever each of them sends (max-min
fairness).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Collection
from functools import cache, partial

import msgspec

from gateway.core.errors import UpstreamBusy, UpstreamUnreachable
from gateway.core.snapshot import Upstream
from gateway.upstream.client_options import ClientOptions
from gateway.upstream.connect import CannotConnect, Connector, UpstreamOrigin
from gateway.upstream.connection import Connection
from gateway.upstream.contract import FailureReason
from gateway.upstream.tls import client_context

HELD_PER_FREE = 3

LINE_MIN = 100
"""A team's line is as long as the upstream has connections, and so long at least."""

BUSY_RETRY_MS = 1_000
"""When a client may come again that found no connection free."""

Waiter = asyncio.Future[Connection | None]
"""Gets a connection, or leave to open one (None). Either is counted for its holder already."""


class Holder(msgspec.Struct, frozen=True, gc=False):
    """Who uses a connection: a model, for a team. Requests of the gateway's own have neither."""

    model: str = ""
    team: str = ""


class ConnectionShares:
    """How many connections each model and each team holds, used or being opened, and who may take one more. `models`
    are all that the upstream serves, `teams` how many teams may use it."""

    def __init__(self, total: int) -> None:
        self.models: Collection[str] = ()
        self.teams = 0
        self.free = total
        self._by_model: dict[str, int] = {}
        self._by_team: dict[str, int] = {}

    def held(self, holder: Holder) -> tuple[int, int]:
        """By its team, and by its model."""
        return self._by_team.get(holder.team, 0), self._by_model.get(holder.model, 0)

    def may_take(self, holder: Holder) -> bool:
        free = self.free
        if not free:
            return False
        most = HELD_PER_FREE * free
        by_team, by_model = self._by_team.get(holder.team, 0), self._by_model.get(holder.model, 0)
        return (by_model < most or self._no_model_holds_less(by_model)) and (
            by_team < most or self._no_team_holds_less(by_team)
        )

    def take(self, holder: Holder) -> bool:
        """Take one more, if the holder may."""
        model, team, most = holder.model, holder.team, HELD_PER_FREE * self.free
        of_model, of_team = self._by_model.get(model, 0), self._by_team.get(team, 0)
        # Nearly everyone holds few: then the shares of others need not be looked at.
        if (of_model >= most or of_team >= most) and not self.may_take(holder):
            return False
        self.free -= 1
        self._by_model[model], self._by_team[team] = of_model + 1, of_team + 1
        return True

    def give_back(self, holder: Holder) -> None:
        self.free += 1
        model, team, by_model, by_team = holder.model, holder.team, self._by_model, self._by_team
        by_model[model] = left = by_model[model] - 1
        if not left:
            del by_model[model]
        by_team[team] = left = by_team[team] - 1
        if not left:
            del by_team[team]

    def _no_model_holds_less(self, held: int) -> bool:
        return all(held <= self._by_model.get(other, 0) for other in self.models)

    def _no_team_holds_less(self, held: int) -> bool:
        holding = [count for team, count in self._by_team.items() if team]
        return len(holding) >= self.teams and all(held <= other for other in holding)


class Pool:
    """Owner of the connections to one upstream. `emptied` is called when the last of them is gone, `make_room` before a
    new one is opened: it says whether an idle one had to be closed for that, to whichever upstream."""

    def __init__(
        self,
        upstream: Upstream,
        origin: UpstreamOrigin,
        options: ClientOptions,
        emptied: Callable[[], None],
        make_room: Callable[[], bool],
    ) -> None:
        self.name = upstream.name
        self.origin = origin
        self.shares = ConnectionShares(upstream.max_connections)
        self._upstream = upstream
        self._options = options
        # Files of its own are read for the first connection, and once.
        tls = cache(partial(client_context, upstream.tls)) if upstream.tls is not None else lambda: options.tls
        self._connector = Connector(origin, tls, options.tasks)
        self._emptied = emptied
        self._make_room = make_room
        self._idle: deque[Connection] = deque()
        self._in_use: dict[Connection, Holder] = {}
        self._lines: dict[Holder, deque[Waiter]] = {}
        self._waiting: Counter[str] = Counter()
        """How many requests of each team are in a line."""
        self._is_closed = False
        self._all_gone = asyncio.Event()

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def open(self) -> int:
        """Idle, used or being opened."""
        return len(self._idle) + self._upstream.max_connections - self.shares.free

    def take_idle(self, holder: Holder) -> Connection | None:
        """A connection for one exchange of this holder, if one is idle and it may have that."""
        if not self._idle or not self.shares.take(holder):
            return None
        connection = self._pop_idle(holder)
        if connection is None:
            self.shares.give_back(holder)
        return connection

    async def acquire(self, holder: Holder, fresh: bool = False) -> Connection:
        """The same, waiting for one or opening a new one, which it is in any case if `fresh`. Raises UpstreamBusy,
        UpstreamUnreachable."""
        if not fresh and (idle := self.take_idle(holder)) is not None:
            return idle
        may_take = self.shares.take(holder)
        if not may_take and self._waiting[holder.team] >= max(self._upstream.max_connections, LINE_MIN):
            raise self._busy(holder, f"and {self._waiting[holder.team]} requests of this team wait already")
        timeout = self._upstream.timeouts.connect
        connecting = may_take
        try:
            async with asyncio.timeout(timeout):
                given = None if may_take else await self._wait_in_line(holder)
                if given is not None and not fresh:
                    return given
                connecting = True
                return await self._connect(holder, instead_of=given)
        except TimeoutError:
            within = f"within {timeout:g} s"
            if not connecting:
                raise self._busy(holder, within) from None
            late = FailureReason("connect_timeout", f"did not accept a connection {within}")
            raise late.error(self._upstream.name, UpstreamUnreachable) from None

    async def close(self) -> None:
        self._is_closed = True
        for connection in [*self._idle, *self._in_use]:
            connection.shut_down()
        if self._idle or self._in_use:
            await self._all_gone.wait()

    def released(self, connection: Connection) -> None:
        options = self._options
        if options.distrusts_any and not options.may_reuse(self._upstream.name):
            connection.abort()
            return
        self._idle.append(connection)
        self.shares.give_back(self._in_use.pop(connection))
        if self._lines:
            self._serve_lines()

    def lost(self, connection: Connection) -> None:
        holder = self._in_use.pop(connection, None)
        if holder is None and connection not in self._idle:
            return  # It never came to be used, or was replaced: the one that did that has its place.
        if holder is None:
            self._idle.remove(connection)
        self._left(holder)

    def close_idle(self) -> None:
        """Close the one that is idle longest."""
        self._idle.popleft().abort()
        self._left(None)

    def unrequested_bytes(self) -> None:
        """No connection of such an upstream is used again: a second answer may be on its way there."""
        self._options.note_unrequested_bytes(self._upstream.name)
        for connection in self._idle:
            connection.abort()

    def _pop_idle(self, holder: Holder) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            if not connection.has_unread_bytes():
                self._in_use[connection] = holder
                return connection
            connection.abort()
            self.unrequested_bytes()
        return None

    async def _wait_in_line(self, holder: Holder) -> Connection | None:
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._lines.setdefault(holder, deque()).append(waiter)
        self._waiting[holder.team] += 1
        try:
            return await waiter
        except BaseException:
            self._leave_line(holder, waiter)
            raise
        finally:
            self._waiting[holder.team] -= 1
            if not self._waiting[holder.team]:
                del self._waiting[holder.team]

    def _busy(self, holder: Holder, why: str) -> UpstreamBusy:
        missing = f"had none of its {self._upstream.max_connections} connections free"
        whose = f" for the model {holder.model!r}" if holder.model else ""
        busy = FailureReason("no_connection_free", f"{missing}{whose} {why}").error(self._upstream.name, UpstreamBusy)
        busy.retry_after_ms = BUSY_RETRY_MS
        return busy

    def _leave_line(self, holder: Holder, waiter: Waiter) -> None:
        """A waiter that gives up passes on what it was given in the same moment."""
        if waiter.cancelled():
            line = self._lines.get(holder, deque())
            with contextlib.suppress(ValueError):  # It may have been skipped and dropped already.
                line.remove(waiter)
            if not line:
                self._lines.pop(holder, None)
        elif (given := waiter.result()) is None:
            self._give_back(holder)
        elif not given.closed:
            self.released(given)

    def _left(self, holder: Holder | None) -> None:
        """A connection has gone, which this holder had (None: it was idle)."""
        if not self._idle and not self._in_use:
            self._all_gone.set()
        self._give_back(holder)

    def _give_back(self, holder: Holder | None) -> None:
        """A holder has one less (None: an idle connection has gone)."""
        if holder is not None:
            self.shares.give_back(holder)
        self._serve_lines()
        if not self._idle and self.shares.free == self._upstream.max_connections:
            self._emptied()

    def _serve_lines(self) -> None:
        """Let those who wait have what is free."""
        while self._lines and (served := self._next_in_line()) is not None:
            holder, waiter = served
            self.shares.take(holder)
            waiter.set_result(self._pop_idle(holder))

    def _next_in_line(self) -> tuple[Holder, Waiter] | None:
        while eligible := [each for each in self._lines if self.shares.may_take(each)]:
            holder = min(eligible, key=self.shares.held)
            line = self._lines.pop(holder)
            waiter = line.popleft()
            if line:
                self._lines[holder] = line  # Behind the others that hold as many.
            if not waiter.done():
                return holder, waiter
        return None

    async def _connect(self, holder: Holder, instead_of: Connection | None) -> Connection:
        if instead_of is not None:
            del self._in_use[instead_of]
            instead_of.abort()
        elif self._idle and len(self._idle) > self.shares.free:
            self._idle.popleft().abort()
        try:
            if self._make_room():
                await asyncio.sleep(0)  # A connection gives its descriptor back in the next turn of the event loop.
            connection = await self._connector.connect(lambda: Connection(self._upstream, self, self._options))
            if self._is_closed:
                connection.abort()
            if connection.closed:
                raise CannotConnect("it closed the connection at once")
        except BaseException as error:
            self._give_back(holder)
            if isinstance(error, CannotConnect):
                reason = FailureReason("not_reached", f"cannot be reached: {error}")
                raise reason.error(self._upstream.name, UpstreamUnreachable) from error
            raise
        self._in_use[connection] = holder
        self._all_gone.clear()
        return connection
