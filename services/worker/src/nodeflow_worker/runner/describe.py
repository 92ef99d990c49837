"""Failures of user code, told so that its author finds the fault.

Owns the words. Knows nothing of pipes or of the agent.
"""

import difflib
import importlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, Final

from nodeflow_worker.runner.frames import MAX_RESULT_BYTES, Failed

PERMANENT: Final = 2
SYSTEM: Final = 3
USER: Final = 4

MAX_TEXT: Final = 8_192
MAX_CAUSES: Final = 5
_OWN_DIRECTORY: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120  # pathlib would slow every start
# Frames of these files are not the user's: ours, and those of the import that we ask for.
_NOT_THE_USERS: Final = (_OWN_DIRECTORY, "<frozen importlib", importlib.__file__)


def raised(error: BaseException, causes: int = 0) -> Failed:
    """Tell of an exception that left the function, with the frames of the user's code."""
    own = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return Failed(
        kind=USER,
        reason="FUNCTION_RAISED",
        message=_message(error),
        retryable=True,
        error_type=_type_name(type(error)),
        traceback=_user_frames(error),
        cause=raised(own, causes + 1) if own is not None and causes < MAX_CAUSES else None,
    )


def not_found(message: str, error: BaseException | None = None) -> Failed:
    """Tell that there is no such function; with `error`, that importing its module failed."""
    return Failed(
        kind=PERMANENT,
        reason="FUNCTION_NOT_FOUND",
        message=_cut(message),
        retryable=False,
        error_type=_type_name(type(error)) if error is not None else "",
        traceback=_user_frames(error) if error is not None else "",
    )


def code_differs(name: str, digest: str, found: str) -> Failed:
    """Tell that the function is pinned to other code than is here; `found` says what is."""
    return Failed(
        kind=SYSTEM,
        reason="CODE_DIFFERS",
        message=_cut(
            f"{name} is pinned to a file of {shortened(digest)}, and {found}; run the workflow again from the file as "
            "it is now, or have a worker that has the file as it was"
        ),
        retryable=False,
    )


def shortened(digest: str) -> str:
    """Return a digest for people."""
    return f"{digest[:19]}…"


def mismatch(name: str, function: Callable[..., Any], arguments: dict[str, Any], error: TypeError) -> Failed | None:
    """Tell that the arguments do not fit the function; None if they do, and the TypeError came from elsewhere."""
    if error.__traceback__ is not None and _first_user_frame(error.__traceback__) is not None:
        return None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return None
    try:
        signature.bind(**arguments)
    except TypeError as fault:
        text = f"{name}{signature} was called with {', '.join(sorted(arguments)) or 'no arguments'}: {fault}"
        return Failed(
            kind=PERMANENT, reason="ARGUMENTS_MISMATCH", message=_cut(text), retryable=False, error_type="TypeError"
        )
    return None


def not_serializable(name: str, value: object, error: Exception) -> Failed:
    """Tell why a result has no JSON form, and where in it the trouble is."""
    try:
        where = _find_fault(value, "result", 0) or f"{error}"
    except Exception as odd:  # noqa: BLE001  # user's objects may raise anything when looked at
        where = f"{error} ({_type_name(type(odd))})"
    return Failed(
        kind=PERMANENT,
        reason="NOT_SERIALIZABLE",
        message=_cut(f"{name} returned what has no JSON form: {where}; return JSON values, or bytes"),
        retryable=False,
        error_type=_type_name(type(error)),
    )


def too_large(name: str, size: int) -> Failed:
    """Tell that a result exceeds what is kept."""
    return Failed(
        kind=PERMANENT,
        reason="RESULT_TOO_LARGE",
        message=f"{name} returned {size:,} bytes; a result may have {MAX_RESULT_BYTES:,} at most",
        retryable=False,
    )


def missing_attribute(name: str, module: ModuleType, attribute: str, owner: object) -> Failed:
    """Tell that a module has no such callable."""
    file = getattr(module, "__file__", None) or "built in"
    return not_found(f"{name}: {module.__name__} ({file}) has no {attribute!r}{_hint(attribute, dir(owner))}")


def missing_module(name: str, module: str, directory: str) -> Failed:
    """Tell that a module is not on the import path."""
    searched = f"{directory} and the worker's path" if directory else "the worker's path"
    return not_found(f"{name}: there is no module {module!r} in {searched}{_hint(module, _modules_in(directory))}")


def _modules_in(directory: str) -> list[str]:
    try:
        return [each.removesuffix(".py") for each in os.listdir(directory or ".")]  # noqa: PTH208  # starts quicker
    except OSError:
        return []


def _hint(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, [each for each in candidates if not each.startswith("_")], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the function called sys.exit({error.code!r})"
    try:
        text = str(error)
    except BaseException as odd:  # noqa: BLE001  # __str__ is the user's code
        text = f"(its message cannot be read: {_type_name(type(odd))})"
    return _cut(text or _type_name(type(error)))


def in_words(error: BaseException) -> str:
    """Return an exception as the last line of its traceback has it; for a SyntaxError, with its place."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    return f"{_type_name(type(error))}: {_message(error)}"


def _type_name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def _user_frames(error: BaseException) -> str:
    first = _first_user_frame(error.__traceback__)
    if first is None:
        return ""
    frames = traceback.extract_tb(first, limit=-50)
    own = [each for each in frames if _is_users(each.filename)]
    return _cut("".join(traceback.format_list(own)))


def _first_user_frame(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if _is_users(file) and not _inside("asyncio", file):
            return trace
        trace = trace.tb_next
    return None


def _is_users(file: str) -> bool:
    """Whether a frame of this file is the user's: what the SDK wraps around a function is not."""
    return not file.startswith(_NOT_THE_USERS) and not _inside("nodeflow_sdk", file)


def _inside(package: str, file: str) -> bool:
    module = sys.modules.get(package)
    return module is not None and file.startswith(os.path.join(os.path.dirname(module.__file__ or "?"), ""))  # noqa: PTH118, PTH120


def _find_fault(value: object, path: str, depth: int) -> str | None:
    if depth > 100:
        return f"{path[:80]}… is nested too deeply, or contains itself"
    match value:
        case None | bool() | int():
            return None
        case float():
            return None if math.isfinite(value) else f"{path} is {value}, which JSON cannot say"
        case str():
            return None if _is_utf8(value) else f"{path} holds a lone surrogate, which UTF-8 cannot say"
        case dict():
            for key, item in value.items():
                if not isinstance(key, str | int | float | bool | None):
                    return f"{path} has a key of type {_type_name(type(key))}"
                fault = _find_fault(item, f"{path}[{key!r}]", depth + 1)
                if fault is not None:
                    return fault
            return None
        case list() | tuple():
            for index, item in enumerate(value):
                fault = _find_fault(item, f"{path}[{index}]", depth + 1)
                if fault is not None:
                    return fault
            return None
        case _:
            return f"{path} is of type {_type_name(type(value))}"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cut(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]}\n…\n{text[-MAX_TEXT // 2 :]}"
