"""The bugs that `make mutants` plants: each is one that somebody could really write, and breaks one promise.

Owns what is changed, and where. Must not know how a bug is hunted. A text that is no longer in its file is an error:
the bug must be planted anew where the code has gone.
"""

from dataclasses import dataclass
from typing import Final

SCHEDULER: Final = "services/scheduler/src/nodeflow_scheduler"
STATE_MANAGER: Final = "services/state-manager/src/nodeflow_state_manager"
WORKER_MANAGER: Final = "services/worker-manager/src/nodeflow_worker_manager"
WORKER: Final = "services/worker/src/nodeflow_worker"

TESTS_OF: Final = {
    SCHEDULER: "tests/unit/scheduler",
    STATE_MANAGER: "tests/unit/state_manager",
    WORKER_MANAGER: "tests/unit/worker_manager",
    WORKER: "tests/unit/worker",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One change of one file."""

    name: str
    breaks: str
    """The promise of DESIGN §6."""
    service: str
    file: str
    """Under the service's package."""
    right: str
    """What stands there now, exactly once."""
    wrong: str

    @property
    def path(self) -> str:
        """Where the file is, from the root of the repository."""
        return f"{self.service}/{self.file}"


BUGS: Final = (
    Bug(
        name="skip the fencing check",
        breaks="I1",
        service=STATE_MANAGER,
        file="domain/append.py",
        right="if not head.leased or part.fencing_token != head.fencing_token:",
        wrong="if not head.leased:",
    ),
    Bug(
        name="accept any offset",
        breaks="I8",
        service=STATE_MANAGER,
        file="domain/append.py",
        right="if part.expected_offset != head.next_offset:",
        wrong="if part.expected_offset > head.next_offset:",
    ),
    Bug(
        name="take a resend for a new part",
        breaks="I8",
        service=STATE_MANAGER,
        file="domain/append.py",
        right="        return expected == list(logged)",
        wrong="        return False",
    ),
    Bug(
        name="acknowledge an append before its commit",
        breaks="I1",
        service=STATE_MANAGER,
        file="driver.py",
        right="            results = await self._store.append([waiting.batch for waiting in group])\n",
        wrong="            for waiting in group:\n"
        "                waiting.stream.answer(Answer(batch_id=waiting.batch_id, refusals=()))\n"
        "            results = await self._store.append([waiting.batch for waiting in group])\n"
        "            return\n",
    ),
    Bug(
        name="call a failed commit a success",
        breaks="I1",
        service=STATE_MANAGER,
        file="driver.py",
        right="            self._fail(group, error)\n        except Exception",
        wrong="            for waiting in group:\n"
        "                waiting.stream.answer(Answer(batch_id=waiting.batch_id, refusals=()))\n"
        "        except Exception",
    ),
    Bug(
        name="act before the log has answered",
        breaks="I1",
        service=SCHEDULER,
        file="driver.py",
        right="                refused = await pending.committed"
        " if pending.committed is not None else frozenset[int]()\n"
        "                self._act(pending.turn, refused)\n",
        wrong="                self._act(pending.turn, frozenset[int]())\n"
        "                if pending.committed is not None:\n"
        "                    await pending.committed\n",
    ),
    Bug(
        name="start a dependant before its parent's result is committed",
        breaks="I3",
        service=SCHEDULER,
        file="domain/core.py",
        right="        self.ledger.write(turn)\n        return turn\n",
        wrong="        self.ledger.write(turn)\n"
        "        for draft in turn.drafts.values():\n"
        "            queued, draft.queued = draft.queued, []\n"
        "            self._enqueue(turn, draft.execution, queued)\n"
        "        return turn\n",
    ),
    Bug(
        name="keep a shard after its append was refused",
        breaks="I7",
        service=SCHEDULER,
        file="domain/core.py",
        right="        if refused:\n            self._drop(refused)\n",
        wrong="",
    ),
    Bug(
        name="tell watchers of a refused turn",
        breaks="I8",
        service=SCHEDULER,
        file="publishing.py",
        right="            if not draft.events or draft.execution.shard in refused:\n",
        wrong="            if not draft.events:\n",
    ),
    Bug(
        name="drop the last event before a cursor",
        breaks="I8",
        service=SCHEDULER,
        file="reading.py",
        right="                    if chunk.last_sequence <= sequence:\n",
        wrong="                    if chunk.last_sequence <= sequence + 1:\n",
    ),
    Bug(
        name="accept a result of an older attempt",
        breaks="I2",
        service=SCHEDULER,
        file="domain/execution.py",
        right="            and 0 < attempt == self.attempts[task]",
        wrong="            and 0 < attempt <= self.attempts[task]",
    ),
    Bug(
        name="accept a result under an older token",
        breaks="I2",
        service=SCHEDULER,
        file="domain/execution.py",
        right="            and self.tokens[task] == token\n",
        wrong="",
    ),
    Bug(
        name="acknowledge a result that another owner must record",
        breaks="I1",
        service=SCHEDULER,
        file="domain/worker_reports.py",
        right="                continue  # Another scheduler's, or not loaded yet:"
        " the worker keeps it until the owner has it.\n",
        wrong="                acks.append((session_id, result_id, shard))\n                continue\n",
    ),
    Bug(
        name="complete a mapped node before its last item",
        breaks="I3",
        service=SCHEDULER,
        file="domain/execution.py",
        right="        if not expansion.open:\n            self.settled.append(expansion.node)",
        wrong="        if expansion.open <= 1:\n            self.settled.append(expansion.node)",
    ),
    Bug(
        name="apply a chunk twice at a replay",
        breaks="I7",
        service=SCHEDULER,
        file="adapters/state_manager.py",
        right="                    _replay(building, part.chunks)\n                    if part.last:",
        wrong="                    _replay(building, part.chunks)\n"
        "                    _replay(building, part.chunks[-1:])\n"
        "                    if part.last:",
    ),
    Bug(
        name="forget at a replay which dependencies are satisfied",
        breaks="I4",
        service=SCHEDULER,
        file="domain/execution.py",
        right="        self.waiting = [sum(not satisfied[parent] for parent in node.dependencies)"
        " for node in workflow.nodes]\n",
        wrong="        self.waiting = list(workflow.dependency_counts)\n",
    ),
    Bug(
        name="lose a timer at a replay",
        breaks="I4",
        service=SCHEDULER,
        file="domain/ledger.py",
        right="            self.timers.set(due_ms, execution_id, task, execution.attempts[task])\n",
        wrong="            pass\n",
    ),
    Bug(
        name="end a backoff early",
        breaks="I2",
        service=SCHEDULER,
        file="domain/timers.py",
        right="while self._heap and self._heap[0].due_ms <= now_ms:",
        wrong="while self._heap and self._heap[0].due_ms <= now_ms + 500:",
    ),
    Bug(
        name="let the log's time go back with the clock",
        breaks="I7",
        service=SCHEDULER,
        file="domain/ledger.py",
        right="            lease.time_ms = max(lease.time_ms, turn.now_ms)\n",
        wrong="            lease.time_ms = turn.now_ms\n",
    ),
    Bug(
        name="restart a finished execution",
        breaks="I2",
        service=SCHEDULER,
        file="domain/callers.py",
        right="        if known is not None:\n            return repeated(known, submit)\n",
        wrong="        if known is not None and not known.finished:\n            return repeated(known, submit)\n",
    ),
    Bug(
        name="forget request_ids that are no longer in memory",
        breaks="I1",
        service=SCHEDULER,
        file="intake.py",
        right="        if not unknown:\n            return {}\n",
        wrong="        if unknown or not unknown:\n            return {}\n",
    ),
    Bug(
        name="cancel without telling the workers",
        breaks="I5",
        service=SCHEDULER,
        file="domain/progress.py",
        right="        self.stopped.extend((task, execution.attempts[task]) for task in live)\n",
        wrong="        del live\n",
    ),
    Bug(
        name="hand out attempts that nobody wants any more",
        breaks="I5",
        service=SCHEDULER,
        file="domain/placement.py",
        right="        return execution.states[task] == _QUEUED and execution.attempts[task] == attempt\n",
        wrong="        return execution.attempts[task] == attempt\n",
    ),
    Bug(
        name="count every slot of a worker as free",
        breaks="I6",
        service=SCHEDULER,
        file="domain/placement.py",
        right="        return self.slots + self.credits - len(self.live) if self.takes else 0\n",
        wrong="        return self.slots + self.credits if self.takes else 0\n",
    ),
    Bug(
        name="take doubtful attempts for lost before the workers have reported",
        breaks="I9",
        service=SCHEDULER,
        file="domain/placement.py",
        right="        return self._attached.issuperset(managers) and all("
        "session.generation for session in self.sessions.values())\n",
        wrong="        return self._attached.issuperset(managers)\n",
    ),
    Bug(
        name="forget a lease at a disconnect",
        breaks="I9",
        service=WORKER_MANAGER,
        file="domain/registry.py",
        right="        session.change(SessionChange.STREAM_LOST)\n"
        "        yield from self._tell_bid(session)\n"
        "\n"
        "    def _on_goodbye",
        wrong="        yield from self._end(session, EndReason.LEASE_ENDED, None)\n\n    def _on_goodbye",
    ),
    Bug(
        name="end a lease that was renewed",
        breaks="I9",
        service=WORKER_MANAGER,
        file="domain/registry.py",
        right="            if session.lease_end > now:\n",
        wrong="            if session.lease_end > now + self._lease_timeout_s / 2:\n",
    ),
    Bug(
        name="deliver an assignment that crossed a report",
        breaks="I2",
        service=WORKER_MANAGER,
        file="domain/registry.py",
        right="        if event.generation != session.generations.get(event.stream):\n",
        wrong="        if event.stream not in session.generations:\n",
    ),
    Bug(
        name="ignore the end of one's own lease",
        breaks="I9",
        service=WORKER,
        file="domain/agent.py",
        right="            case events.LeaseEnding():\n                return self._drop_live()\n",
        wrong="            case events.LeaseEnding():\n                return []\n",
    ),
    Bug(
        name="leak a slot at a timeout",
        breaks="I6",
        service=WORKER,
        file="domain/agent.py",
        right="        self._live -= 1\n\n    def _record(",
        wrong="        self._live -= attempt.stop is not Stop.TIMEOUT\n\n    def _record(",
    ),
    Bug(
        name="forget results that were sent and not acknowledged",
        breaks="I1",
        service=WORKER,
        file="domain/agent.py",
        right="        return live, self._unacknowledged.told()\n",
        wrong="        return live, []\n",
    ),
    Bug(
        name="take an assignment under an older token",
        breaks="I2",
        service=WORKER,
        file="domain/agent.py",
        right="        return attempt.fencing_token < token\n",
        wrong="        return False\n",
    ),
    Bug(
        name="tell the result of a process before it is kept",
        breaks="I1",
        service=WORKER,
        file="domain/agent.py",
        right="        if attempt.spec.process is not None:\n"
        "            return [self._record(attempt, outcome)]\n"
        "        self._finish(attempt, outcome)\n",
        wrong="        self._finish(attempt, outcome)\n",
    ),
    Bug(
        name="leave behind what an earlier life of the worker had finished",
        breaks="I1",
        service=WORKER,
        file="driver.py",
        right="        self.handle(events.LeftBehind(results=left.results))\n",
        wrong="        self.handle(events.LeftBehind(results=()))\n",
    ),
    Bug(
        name="take on more than there is room for",
        breaks="I11",
        service=SCHEDULER,
        file="domain/admission.py",
        right="        executions = len(self._tasks) + waiting.executions\n",
        wrong="        executions = len(self._tasks)\n",
    ),
    Bug(
        name="read on while the inbox is full",
        breaks="I11",
        service=SCHEDULER,
        file="adapters/workers.py",
        right="                await self._inbox.room()\n",
        wrong="",
    ),
    Bug(
        name="take attempts while results find no room",
        breaks="I11",
        service=WORKER,
        file="domain/agent.py",
        right="        if self.draining or self._unacknowledged.full:\n",
        wrong="        if self.draining:\n",
    ),
    Bug(
        name="let in bytes as if nothing waited",
        breaks="I11",
        service=STATE_MANAGER,
        file="driver.py",
        right="        while self._used and self._used + size > self._limit:\n",
        wrong="        while size > self._limit and self._used:\n",
    ),
    Bug(
        name="acknowledge what a later owner of the shard began",
        breaks="I1",
        service=SCHEDULER,
        file="domain/worker_reports.py",
        right="            if lease is None or token > lease.token:\n",
        wrong="            if lease is None:\n",
    ),
    Bug(
        name="count the load of a worker, and never the relief",
        breaks="I4",
        service=SCHEDULER,
        file="domain/placement.py",
        right="            self.load_bytes -= sum([self.loads.pop(key, 0) for key in keys])\n",
        wrong="            self.loads.clear()\n",
    ),
)
