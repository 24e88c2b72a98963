"""All faults by name: what is done, what it needs, whether it is part of the short run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults import scenarios_agent, scenarios_clients, scenarios_hosts, scenarios_redis, scenarios_store
from tests.faults.machines import can_make_networks
from tests.faults.stage import Measured


@dataclass(frozen=True, slots=True)
class Scenario:
    """`possible`: whether this machine lets the fault be provoked; `needs` says what that takes."""

    title: str
    run: Callable[[int], Awaitable[Measured]]
    short: bool = False
    possible: Callable[[], bool] = lambda: True
    needs: str = ""

    @property
    def name(self) -> str:
        return str(self.run.__name__)


HOSTS, REDIS, AGENT, STORE = scenarios_hosts, scenarios_redis, scenarios_agent, scenarios_store
CLIENTS = scenarios_clients

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("supervisor: kill -9, another machine takes over", HOSTS.supervisor_killed, short=True),
    Scenario("supervisor: kill -9, default lease (15 s)", HOSTS.supervisor_killed_default),
    Scenario("supervisor: kill -9, started again on its machine", HOSTS.supervisor_restarted),
    Scenario("supervisor: three killed one after another", HOSTS.hosts_end_in_a_row),
    Scenario(
        "supervisor: SIGSTOP for over 2 leases, another machine takes over, SIGCONT",
        HOSTS.supervisor_frozen,
        short=True,
    ),
    Scenario("supervisor: SIGSTOP until the lease is over, nobody else, SIGCONT", HOSTS.supervisor_frozen_alone),
    Scenario("guard: kill -9", HOSTS.guard_killed, short=True),
    Scenario("guard and supervisor: SIGSTOP of both", HOSTS.guard_frozen_with_supervisor),
    Scenario("guard and supervisor: kill -9 of both, setsid daemon in the tree", HOSTS.guard_and_supervisor_killed),
    Scenario(
        "guard and supervisor: kill -9 of both, a daemon without its environment",
        HOSTS.hidden_daemon_orphaned,
        possible=HOSTS.can_have_groups,
        needs="a control group (root, or one that is delegated)",
    ),
    Scenario("agent: kill -9", HOSTS.agent_killed),
    Scenario("agent: guard killed in every turn (restart budget)", HOSTS.crash_loop),
    Scenario("Redis: kill -9, started again at once", REDIS.redis_killed, short=True),
    Scenario("Redis: away until the lease is over", REDIS.redis_away, short=True),
    Scenario("Redis: SIGSTOP until the lease is over", REDIS.redis_stopped),
    Scenario("Redis: CLIENT PAUSE for a third of a lease", REDIS.redis_paused),
    Scenario("Redis: CLIENT PAUSE for 3.3 s, default lease (15 s) and grace", REDIS.redis_paused_default),
    Scenario("Redis: FLUSHALL in the middle of a turn", REDIS.redis_wiped),
    Scenario("Redis: set back to an older state", REDIS.redis_set_back, short=True),
    Scenario("Redis: killed, its replica takes its address", REDIS.redis_failed_over, short=True),
    Scenario("Redis: killed, a replica that lags behind takes its address", REDIS.redis_failed_over_behind),
    Scenario("Redis: Cody's own server killed", STORE.embedded_redis_killed, short=True),
    Scenario("Redis: 20 readers over two restarts", STORE.readers_over_a_restart),
    Scenario("network: 40 replies lost after the command took effect", REDIS.replies_lost),
    Scenario("network: connections cut again and again", REDIS.connections_cut),
    Scenario("network: packets of one machine vanish until another has taken over", REDIS.answers_stalled),
    Scenario(
        "network: cable of one machine pulled until another has taken over (network namespaces)",
        REDIS.partition,
        possible=can_make_networks,
        needs="root, ip, veth",
    ),
    Scenario("network: SIGTERM for a worker that can't reach Redis", REDIS.ended_without_redis),
    Scenario("disk: state folder full (tmpfs of 1 MiB)", AGENT.disk_full, possible=AGENT.can_mount, needs="root"),
    Scenario(
        "clock: stepped +1 h, then -2 h (libfaketime)",
        AGENT.clock_stepped,
        possible=AGENT.can_step_clock,
        needs="libfaketime",
    ),
    Scenario("agent: a line of 50 MB", AGENT.line_of_50_mb),
    Scenario("agent: 10^6 lines", AGENT.million_lines),
    Scenario("agent: invalid UTF-8, NUL, half a JSON, NaN, deep JSON", AGENT.garbage),
    Scenario("agent: forged sentinels and SSE frames", AGENT.forged_sentinels, short=True),
    Scenario("agent: SIGTERM ignored, setsid daemon, cancel", AGENT.sigterm_ignored, short=True),
    Scenario("agent: leaves a setsid daemon behind", AGENT.daemon_left_behind),
    Scenario("agent: silence", AGENT.silence),
    Scenario("stop file: symlink, FIFO, folder, socket", AGENT.stop_file_that_is_none),
    Scenario("store: corrupt records of seven kinds", STORE.corrupt_records),
    Scenario("store: stream trimmed past a reader", STORE.trimmed_past_a_reader, short=True),
    Scenario("clients: 100 equal POSTs with one Idempotency-Key, two servers", STORE.equal_posts, short=True),
    Scenario("clients: 1,000 mixed control calls on four runs", CLIENTS.control_storm),
    Scenario("clients: deep and huge JSON, NaN, wrong content types", CLIENTS.bodies_that_are_none, short=True),
    Scenario("clients: .., NUL and turned links in epicId and workingDir", CLIENTS.paths_that_lead_elsewhere),
    Scenario("clients: 1,000 readers that do not read", CLIENTS.slow_readers),
    Scenario("clients: 10,000 runs listed page by page", STORE.ten_thousand_runs),
)
