"""What the turns of a run share, and what one hands to the next: the epic, the prompt, the conversation, the end's signs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cody.contracts.run import TokenUsage
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import WarningRaised
from cody.pipeline.publisher import Publisher
from cody.redaction import Redactor
from cody.settings import agent_environment
from harness import epic as epics
from harness import prompt
from harness.agents.base import Agent, TurnRequest
from harness.completion import (
    LogBaseline,
    LogWatch,
    StopFound,
    StopRefused,
    check_stop_file,
    clear_stale,
    take_baseline,
)
from harness.epic import Epic
from harness.journal import Journal
from harness.leases import Lease
from harness.process import Launch
from harness.verdict import Completion


@dataclass(slots=True)
class TurnSeries:
    """What all turns of a run share, and what one hands to the next: the conversation, when it is resumed."""

    run_id: str
    fence: int
    config: RunConfig
    epic: Epic
    agent: Agent
    journal: Journal
    lease: Lease
    grace_s: float
    turn_dir: Callable[[int], Path]
    redactor: Redactor
    log_watch: LogWatch
    thread_id: str | None
    thread_usage: TokenUsage | None
    publisher: Publisher | None

    @classmethod
    async def prepare(
        cls,
        *,
        run_id: str,
        fence: int,
        config: RunConfig,
        epic: Epic,
        agent: Agent,
        journal: Journal,
        lease: Lease,
        grace_s: float,
        turn_dir: Callable[[int], Path],
        redactor: Redactor,
        epic_id: str,
        kept: Mapping[str, str],
        publisher: Publisher | None,
    ) -> TurnSeries:
        """Ready to make turns. At a run's first start a stale stop file is moved aside and the log's state is kept.

        `kept` is the run's meta: what an earlier worker of this run left for us.
        """
        if "completionBaseline" in kept:
            baseline = LogBaseline.from_json(kept["completionBaseline"])
        else:
            moved = await asyncio.to_thread(clear_stale, epic, run_id)
            baseline = await asyncio.to_thread(take_baseline, epic.codys_log, config.completion)
            journal.set({"completionBaseline": baseline.to_json()})
            instead = epics.stands_in(epic, epic_id)
            if instead is not None:
                journal.emit(WarningRaised(code="epic_default", message=instead))
            if moved is not None:
                message = f"a stop file from before this run was moved aside to {moved}"
                journal.emit(WarningRaised(code="stale_stop_file", message=message))
        usage = kept.get("threadUsage")
        return cls(
            run_id=run_id,
            fence=fence,
            config=config,
            epic=epic,
            agent=agent,
            journal=journal,
            lease=lease,
            grace_s=grace_s,
            turn_dir=turn_dir,
            redactor=redactor,
            log_watch=LogWatch(epic.codys_log, config.completion, baseline),
            thread_id=kept.get("threadId"),
            thread_usage=TokenUsage.model_validate_json(usage) if usage else None,
            publisher=publisher,
        )

    def request(self, turn: int, counted: int) -> TurnRequest:
        """Assemble the turn's prompt and keep it. Blocking; raises CodyError when the epic can't be read, OSError.

        `counted` is its number among those that count towards maxTurns: one that was cut off does not.
        """
        epics.check_in_place(self.epic, self.config)
        folder = self.turn_dir(turn)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = prompt.assemble(
            epics.read(self.epic),
            epic=self.epic,
            turn=counted,
            max_turns=self.config.max_turns,
            run_id=self.run_id,
        )
        path = folder / "prompt.md"
        # Cody keeps this file: what the agent needs of a secret is in its environment.
        path.write_text(self.redactor.clean_text(text), encoding="utf-8")
        return TurnRequest(
            run_id=self.run_id,
            turn=turn,
            config=self.config,
            prompt=path,
            base_env={**agent_environment(), **self.markers(turn)},
            resume_thread=self.resumed_thread,
            resume_usage=self.resumed_usage,
        )

    def launch(self, request: TurnRequest) -> Launch:
        """The program to start for it."""
        made = self.agent.launch(request)
        return Launch(
            argv=made.argv,
            # Where the epic was found, all links resolved: a link in config.workingDir may lead elsewhere by now.
            cwd=self.epic.working_dir,
            env={**made.env, **self.markers(request.turn)},
            stdin=made.stdin,
        )

    @property
    def resumed_thread(self) -> str | None:
        """The conversation that the next turn goes on in; None = it begins one."""
        return self.thread_id if self.config.session == "resume" else None

    @property
    def resumed_usage(self) -> TokenUsage | None:
        """What that conversation has used so far."""
        return self.thread_usage if self.config.session == "resume" else None

    def markers(self, turn: int) -> dict[str, str]:
        """Cody's own variables; config.env can't change them."""
        return {
            "CODY_RUN_ID": self.run_id,
            "CODY_TURN": str(turn),
            "CODY_FENCE": str(self.fence),
            "CODY_EPIC_DIR": str(self.epic.epic_dir),
            "CODY_HARNESS_DIR": str(self.epic.harness_dir),
            "CODY_STOP_FILE": str(self.epic.stop_file),
        }

    def completion(self) -> tuple[Completion | None, str | None]:
        """Whether the stop file or the log says that the work is done, and why a stop file did not count. Blocking.

        What the agent prints never counts.
        """
        refused: str | None = None
        match check_stop_file(self.epic):
            case StopFound(line=line):
                return Completion("stop_file", line), None
            case StopRefused(reason=reason):
                refused = reason
            case None:
                pass
        matched = self.log_watch.check()
        return (Completion("log_pattern", matched) if matched is not None else None), refused

    def begin_thread(self, thread_id: str) -> None:
        """A turn has a conversation: should it be cut off, the next one goes on in it. One that is resumed stays as it is."""
        if self.thread_id is None:
            self.keep_thread(thread_id, None)

    def keep_thread(self, thread_id: str | None, usage: TokenUsage | None) -> None:
        """The conversation that the next turn goes on in, should it be asked to, and what it has used so far."""
        if self.config.session != "resume" or thread_id is None:
            return
        self.thread_id, self.thread_usage = thread_id, usage
        kept = usage.model_dump_json(by_alias=True) if usage else ""
        self.journal.set({"threadId": thread_id, "threadUsage": kept})
