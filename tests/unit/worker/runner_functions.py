"""What tests of runners have executed: functions that end in every way in which one can."""

from nodeflow_worker.domain.values import Failure, Outcome

FUNCTIONS = """
import asyncio, ctypes, os, signal, subprocess, sys, threading, time

class Shapes:
    @staticmethod
    def area(width, height):
        return width * height

def echo(value=None):
    return value

async def slow_echo(value, delay):
    await asyncio.sleep(delay)
    return value

class Callable:
    async def __call__(self, value):
        return [value]

called = Callable()

def fail(text):
    raise ValueError(text)

def chain():
    try:
        fail("inner")
    except ValueError as error:
        raise KeyError("outer") from error

def deep():
    return deep()

def type_error_inside(value):
    return len(value)

def leave(code):
    sys.exit(code)

def interrupt():
    raise KeyboardInterrupt

def memory():
    raise MemoryError("no more")

def die(code):
    os._exit(code)

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def hang():
    time.sleep(1000)

def hang_in_c():
    ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the interpreter's lock

def hang_stubbornly():
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass

def hang_politely():
    try:
        time.sleep(1000)
    except BaseException:
        return "thanks"

def clean_up(path):
    try:
        time.sleep(1000)
    finally:
        open(path, "w").write("cleaned")

async def hang_async(path):
    try:
        await asyncio.sleep(1000)
    finally:
        open(path, "w").write("cleaned")

def say(text):
    print(text)
    sys.stdin.read()
    return "said"

def flood(size):
    sys.stdout.write("x" * size)
    return "flooded"

def odd(kind):
    return {
        "set": {"rows": [1, {2}]},
        "nan": {"mean": float("nan")},
        "key": {(1, 2): 3},
        "object": object(),
        "surrogate": "\\ud800",
    }[kind]

def circular():
    value = []
    value.append(value)
    return value

def octets(size):
    return b"x" * size

def text(size):
    return "x" * size

def environment():
    return dict(os.environ)

def descriptors():
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if os.path.exists(link))

def search_path():
    return sys.path[:3]

def no_argv():
    return sys.argv

def mess_up_pipe():
    for fd in range(3, 1000):
        try:
            os.write(fd, b"\\xff" * 64)
        except OSError:
            pass
    time.sleep(1000)

def fork():
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(9)

def child():
    return subprocess.Popen(["sleep", "1000"]).pid

def nap(seconds):
    time.sleep(seconds)
    return "rested"
"""


def failed(outcome: Outcome | None) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome
