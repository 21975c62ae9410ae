"""What the tests of queues do again and again."""

from __future__ import annotations

import time

from celeriac import Message, Queue

FAR = 3600


def take(queue: Queue) -> Message:
    """The message that is there."""
    message = queue.get(timeout=0)
    assert message is not None
    return message


def bodies(queue: Queue) -> list[bytes]:
    """Takes and acknowledges all that is ready."""
    taken = []
    while (message := queue.get(timeout=0)) is not None:
        taken.append(message.body)
        message.ack()
    return taken


def after(seconds: float) -> None:
    """Sleeps until so much time has surely passed."""
    time.sleep(seconds + 0.005)
