"""Real runner processes: every way in which a function can end, and who is blamed."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.unit.worker.lab import Lab
from tests.unit.worker.runner_functions import FUNCTIONS, failed

from nodeflow_worker.domain.values import Ending, Extra, Failure, FailureKind, Stored


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        lab.write("fns.py", FUNCTIONS)
        yield lab


class TestValues:
    @pytest.mark.parametrize(
        "value",
        [None, True, 0, -7, 2**70, 0.1, "", "äöü €", [], {}, {"a": [1, {"b": None}]}, [[["x"]]], "\x00\n\u2028"],
    )
    async def test_json_goes_in_and_out_unchanged(self, lab: Lab, value: object) -> None:
        outcome = await lab.call("fns:echo", json.dumps({"value": value}).encode())
        assert isinstance(outcome, bytes)
        assert json.loads(outcome) == value

    async def test_results_are_compact_utf8(self, lab: Lab) -> None:
        outcome = await lab.call("fns:echo", json.dumps({"value": {"ä": [1, 2]}}).encode())
        assert outcome == '{"ä":[1,2]}'.encode()

    async def test_a_coroutine_function_runs_on_a_loop(self, lab: Lab) -> None:
        assert await lab.call("fns:slow_echo", b'{"value": 3, "delay": 0.01}') == b"3"

    async def test_dotted_callables_and_callable_objects(self, lab: Lab) -> None:
        assert await lab.call("fns:Shapes.area", b'{"width": 3, "height": 4}') == b"12"
        assert await lab.call("fns:called", b'{"value": 1}') == b"[1]"

    async def test_bytes_keep_their_type(self, lab: Lab) -> None:
        outcome = await lab.call("fns:octets", b'{"size": 3}')
        assert outcome == Stored(content_type="application/octet-stream", data=b"xxx")

    async def test_large_results_are_handed_over_whole(self, lab: Lab) -> None:
        outcome = await lab.call("fns:text", b'{"size": 5000000}')
        assert outcome == Stored(data=b'"' + b"x" * 5_000_000 + b'"')

    async def test_arguments_by_reference(self, lab: Lab) -> None:
        one, two, three = (lab.attempt("fns:echo") for _ in range(3))
        one.extras = (Extra(parameter="value", content_type="application/json", data=b'{"a": 1}'),)
        manifest = b'[{"value": 1}, {"artifact": {"digest": "sha256:2", "size_bytes": 3}}]'
        kind = "application/vnd.nodeflow.manifest+json"
        two.extras = (Extra(parameter="value", content_type=kind, data=manifest, parts=(("sha256:2", b"[2]"),)),)
        three.extras = (Extra(parameter="value", content_type="image/png", data=b"PNG"),)
        octets = Stored(content_type="application/octet-stream", data=b"PNG")
        assert await lab.run(one, two, three) == [b'{"a":1}', b"[1,[2]]", octets]


class TestFailures:
    async def test_an_exception(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:fail", b'{"text": "no luck"}'))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.USER, "FUNCTION_RAISED", True)
        assert (failure.error_type, failure.message) == ("ValueError", "no luck")
        assert failure.traceback.count("File ") == 1
        assert "fns.py" in failure.traceback
        assert "raise ValueError(text)" in failure.traceback

    async def test_a_cause_is_told_too(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:chain"))
        assert failure.error_type == "KeyError"
        assert failure.cause is not None
        assert failure.cause.message == "inner"

    @pytest.mark.parametrize(
        ("function", "error_type"),
        [("deep", "RecursionError"), ("interrupt", "KeyboardInterrupt"), ("memory", "MemoryError")],
    )
    async def test_serious_exceptions_leave_the_runner_alive(self, lab: Lab, function: str, error_type: str) -> None:
        failure = failed(await lab.call(f"fns:{function}"))
        assert (failure.reason, failure.error_type) == ("FUNCTION_RAISED", error_type)
        assert len(failure.traceback) < 10_000
        assert lab.deaths() == []

    async def test_sys_exit_is_a_failure(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:leave", b'{"code": 3}'))
        assert (failure.reason, failure.error_type) == ("FUNCTION_RAISED", "SystemExit")
        assert "sys.exit(3)" in failure.message
        assert lab.deaths() == []

    async def test_a_missing_module(self, lab: Lab) -> None:
        failure = failed(await lab.call("fnz:echo"))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.PERMANENT, "FUNCTION_NOT_FOUND", False)
        assert "no module 'fnz'" in failure.message
        assert str(lab.directory) in failure.message
        assert "did you mean 'fns'?" in failure.message

    async def test_a_missing_function(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:ecko"))
        assert failure.reason == "FUNCTION_NOT_FOUND"
        assert "has no 'ecko'; did you mean 'echo'?" in failure.message

    @pytest.mark.parametrize("name", ["", "fns", "fns:", ":echo", ".fns:echo", "fns:FUNCTIONS.x"])
    async def test_a_malformed_name(self, lab: Lab, name: str) -> None:
        assert failed(await lab.call(name)).reason == "FUNCTION_NOT_FOUND"

    async def test_a_module_that_cannot_be_imported(self, lab: Lab) -> None:
        lab.write("broken.py", "import fns\nfns.fail('at import')\n")
        failure = failed(await lab.call("broken:f"))
        assert (failure.reason, failure.retryable, failure.error_type) == ("FUNCTION_NOT_FOUND", False, "ValueError")
        assert "at import" in failure.message
        assert "broken.py" in failure.traceback

    async def test_a_module_that_misses_another(self, lab: Lab) -> None:
        lab.write("needy.py", "import not_installed_anywhere\n")
        failure = failed(await lab.call("needy:f"))
        assert (failure.reason, failure.error_type) == ("FUNCTION_NOT_FOUND", "ModuleNotFoundError")
        assert "not_installed_anywhere" in failure.message

    @pytest.mark.parametrize("function", ["fns:Shapes.area", "fns:slow_echo"])
    async def test_arguments_that_do_not_fit(self, lab: Lab, function: str) -> None:
        failure = failed(await lab.call(function, b'{"widht": 3}'))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.PERMANENT, "ARGUMENTS_MISMATCH", False)
        assert "widht" in failure.message

    async def test_a_type_error_inside_is_the_functions(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:type_error_inside", b'{"value": 3}'))
        assert (failure.reason, failure.error_type) == ("FUNCTION_RAISED", "TypeError")

    @pytest.mark.parametrize(
        ("kind", "where"),
        [
            ("set", "result['rows'][1] is of type set"),
            ("nan", "result['mean'] is nan"),
            ("key", "key of type tuple"),
            ("object", "result is of type object"),
            ("surrogate", "lone surrogate"),
        ],
    )
    async def test_a_result_without_json_form(self, lab: Lab, kind: str, where: str) -> None:
        failure = failed(await lab.call("fns:odd", json.dumps({"kind": kind}).encode()))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.PERMANENT, "NOT_SERIALIZABLE", False)
        assert where in failure.message

    async def test_a_circular_result(self, lab: Lab) -> None:
        assert failed(await lab.call("fns:circular")).reason == "NOT_SERIALIZABLE"

    async def test_a_result_beyond_the_limit(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:octets", b'{"size": 268435457}'))
        assert (failure.reason, failure.retryable) == ("RESULT_TOO_LARGE", False)


class TestDeaths:
    async def test_os_exit(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:die", b'{"code": 3}'))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.USER, "RUNNER_EXITED", True)
        assert "exited with code 3" in failure.message
        assert await lab.call("fns:echo", b'{"value": 1}') == b"1"

    async def test_a_signal(self, lab: Lab) -> None:
        assert "SIGKILL" in failed(await lab.call("fns:kill")).message

    async def test_a_forked_child_hides_nothing(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:fork"))
        assert "exited with code 9" in failure.message

    async def test_garbage_on_the_pipe_is_blamed_on_its_writer(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:mess_up_pipe"))
        assert (failure.kind, failure.reason) == (FailureKind.USER, "RUNNER_EXITED")

    async def test_blame_in_a_batch(self, lab: Lab) -> None:
        lab.write(
            "batch.py",
            "import os\ndone = []\ndef step(n=0, log=None):\n"
            "    if n: open(log, 'a').write(f'{n}\\n')\n    if n == 50: os._exit(7)\n    return n\n",
        )
        log = str(lab.directory / "log")
        await lab.warm("batch:step")
        arguments = [json.dumps({"n": n, "log": log}).encode() for n in range(1, 101)]
        attempts = [lab.attempt("batch:step", each) for each in arguments]
        outcomes = await lab.run(*attempts)
        assert [each for each in outcomes if not isinstance(each, bytes)] == [
            each for each in outcomes if isinstance(each, Failure)
        ]
        blamed = [n for n, each in enumerate(outcomes, 1) if isinstance(each, Failure) and "code 7" in each.message]
        assert 50 in blamed
        exited = [
            n for n, each in enumerate(outcomes, 1) if isinstance(each, Failure) and each.reason == "RUNNER_EXITED"
        ]
        lost = [n for n, each in enumerate(outcomes, 1) if isinstance(each, Failure) and each.reason == "RESULT_LOST"]
        assert exited == [50]
        assert all(n < 50 for n in lost)
        assert [outcomes[n - 1] for n in range(51, 101)] == [str(n).encode() for n in range(51, 101)]
        executed = (lab.directory / "log").read_text().split()
        assert sorted(map(int, executed)) == list(range(1, 101))

    async def test_results_before_a_long_task_are_told_while_it_runs(self, lab: Lab) -> None:
        await lab.warm("fns:echo")
        quick = [lab.attempt("fns:echo", b'{"value": 1}') for _ in range(20)]
        lab.write("mixed.py", "import time\ndef f(s=0):\n    time.sleep(s)\n    return s\n")
        await lab.warm("mixed:f")
        batch = [lab.attempt("mixed:f", b'{"s": %d}' % (1000 if n == 10 else 0)) for n in range(20)]
        outcomes = asyncio.ensure_future(lab.run(*quick, *batch))
        await lab.until(lambda: all(each.outcome is not None for each in (*quick, *batch[:10])))
        assert all(each.outcome is None for each in batch[10:])
        lab.cancel(batch[10], 0.5)
        await outcomes
        assert [each.outcome for each in batch] == [b"0"] * 10 + [Ending.CANCELLED] + [b"0"] * 9

    async def test_quick_tasks_behind_a_long_one_run_in_an_idle_runner_once_each(self, tmp_path: Path) -> None:
        async with Lab(tmp_path, slots=2) as lab:
            log = tmp_path / "log"
            lab.write(
                "mixed.py",
                "import time\ndef f(n, s):\n"
                f"    with open({str(log)!r}, 'a') as file: file.write(f'{{n}}\\n')\n"
                "    time.sleep(s)\n    return n\n",
            )
            both = [lab.attempt("mixed:f", b'{"n": 0, "s": 0}') for _ in range(2)]
            await lab.run(*both)
            log.write_text("")
            batch = [lab.attempt("mixed:f", b'{"n": %d, "s": %d}' % (n, 1000 if n == 5 else 0)) for n in range(100)]
            outcomes = asyncio.ensure_future(lab.run(*batch))
            await lab.until(lambda: sum(each.outcome is not None for each in batch) == 99)
            lab.cancel(batch[5], 0.2)
            await outcomes
            expected = [Ending.CANCELLED if n == 5 else b"%d" % n for n in range(100)]
            assert [each.outcome for each in batch] == expected
            assert sorted(map(int, log.read_text().split())) == list(range(100))

    async def test_quick_tasks_behind_the_second_long_one_run_elsewhere_too(self, tmp_path: Path) -> None:
        """The first was seen to be long while nobody was idle; nothing more is fed that would make anybody look."""
        async with Lab(tmp_path, slots=2) as lab:
            lab.write("fns.py", FUNCTIONS)
            await lab.known_as_quick("fns:nap", b'{"seconds": 0}')
            busy, *batch = [lab.attempt("fns:nap", b'{"seconds": %f}' % s) for s in (0.3, 0.05, 1_000, 0)]
            other = asyncio.ensure_future(lab.run(busy))
            await lab.until_running(busy)
            outcomes = asyncio.ensure_future(lab.run(*batch))
            await other
            await lab.until(lambda: batch[2].outcome is not None)
            lab.cancel(batch[1], 0.2)
            assert await outcomes == [b'"rested"', Ending.CANCELLED, b'"rested"']


class TestStops:
    @pytest.mark.parametrize("function", ["hang", "hang_in_c", "hang_stubbornly"])
    async def test_a_function_that_hangs_is_stopped_at_its_timeout(self, lab: Lab, function: str) -> None:
        loop = asyncio.get_running_loop()
        await lab.warm("fns:echo")
        before = loop.time()
        failure = failed(await lab.call(f"fns:{function}", timeout_s=0.2))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.TRANSIENT, "ATTEMPT_TIMEOUT", True)
        assert 0.2 <= loop.time() - before < 2.0
        assert await lab.call("fns:echo", b'{"value": 1}') == b"1"

    async def test_the_loop_never_waits_for_a_stuck_runner(self, lab: Lab) -> None:
        gaps: list[float] = []
        loop = asyncio.get_running_loop()

        async def tick() -> None:
            while True:
                before = loop.time()
                await asyncio.sleep(0.01)
                gaps.append(loop.time() - before)

        ticking = asyncio.ensure_future(tick())
        await lab.call("fns:hang_in_c", timeout_s=0.3)
        ticking.cancel()
        assert max(gaps) < 0.25

    @pytest.mark.parametrize("function", ["clean_up", "hang_async"])
    async def test_code_may_clean_up_within_the_grace_time(self, lab: Lab, function: str) -> None:
        path = lab.directory / "cleaned"
        await lab.warm("fns:echo")  # or the cancellation could come while the module is imported
        attempt = lab.attempt(f"fns:{function}", json.dumps({"path": str(path)}).encode())
        ended = asyncio.ensure_future(lab.run(attempt))
        await lab.until_running(attempt)
        lab.cancel(attempt, 5.0)
        assert await ended == [Ending.CANCELLED]
        assert path.read_text() == "cleaned"

    async def test_code_that_will_not_stop_is_killed_after_the_grace_time(self, lab: Lab) -> None:
        await lab.warm("fns:echo")
        attempt = lab.attempt("fns:hang_stubbornly")
        ended = asyncio.ensure_future(lab.run(attempt))
        await lab.until_running(attempt)
        lab.cancel(attempt, 0.1)
        assert await ended == [Ending.CANCELLED]
        assert [death.killed for death in lab.deaths()] == [True]

    async def test_a_value_returned_on_the_request_to_stop_counts_and_the_runner_goes_on(self, lab: Lab) -> None:
        await lab.warm("fns:echo")
        attempt = lab.attempt("fns:hang_politely")
        ended = asyncio.ensure_future(lab.run(attempt))
        await lab.until_running(attempt)
        lab.cancel(attempt, 5.0)
        assert await ended == [b'"thanks"']
        # More tasks than there are places on the page: none is taken for the one that was to stop.
        assert await lab.run(*[lab.attempt("fns:echo") for _ in range(3000)]) == [b"null"] * 3000
        assert lab.deaths() == []

    async def test_what_user_code_started_goes_with_its_runner(self, lab: Lab) -> None:
        outcome = await lab.call("fns:child")
        assert isinstance(outcome, bytes)
        child = psutil.Process(int(outcome))
        await lab.call("fns:die", b'{"code": 1}')
        assert child.wait(5) is None or not child.is_running()

    async def test_a_timed_task_in_time_succeeds(self, lab: Lab) -> None:
        assert await lab.call("fns:nap", b'{"seconds": 0.1}', timeout_s=5) == b'"rested"'

    async def test_a_timeout_counts_from_the_start_of_its_own_task(self, lab: Lab) -> None:
        attempts = [lab.attempt("fns:nap", b'{"seconds": 0.15}', timeout_s=0.5) for _ in range(5)]
        assert await lab.run(*attempts) == [b'"rested"'] * 5

    @pytest.mark.parametrize("other_timeout_s", [None, 3600])
    async def test_a_task_behind_a_long_one_has_its_timeout_too(self, lab: Lab, other_timeout_s: float | None) -> None:
        """They were fed together, and nothing more is, that would make anybody look again."""
        await lab.known_as_quick("fns:nap", b'{"seconds": 0}')
        before = lab.attempt("fns:nap", b'{"seconds": 0.05}', timeout_s=other_timeout_s)
        behind = lab.attempt("fns:nap", b'{"seconds": 1000}', timeout_s=0.2)
        assert (await lab.run(before, behind))[0] == b'"rested"'
        assert failed(behind.outcome).reason == "ATTEMPT_TIMEOUT"
        assert behind in lab.running
