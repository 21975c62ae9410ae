"""What a channel has delivered and not yet seen acknowledged.

The queue is the truth: a delivered message is reserved there by this process, and when the
process ends, the kernel tells the others, who deliver it again. So nothing has to be written down
here to make a message safe. The dictionary below maps delivery tags to the queue's own handles
and counts them against the prefetch limit.

Acknowledging from another thread than the consuming one is fine: taking a tag out of the
dictionary decides which call gets it. A forked child inherits a copy and must not settle its
parent's messages, so everything that settles does nothing outside of the process that consumed.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger
from kombu.transport import virtual

from celeriac.celery.dead_letters import REJECTED
from celeriac.errors import NotOwner, StoreNotFound

if TYPE_CHECKING:
    from celeriac.celery.messages import Message
    from celeriac.message import Message as NativeMessage

__all__ = ["QoS"]

logger = get_logger(__name__)


class QoS(virtual.QoS):
    """Unacknowledged messages of one channel and its prefetch limit."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        # Not the parent's constructor: that one registers a restore at interpreter exit, and
        # with it every channel that was never closed stays in memory. The store redelivers what
        # an ended process had reserved.
        self.channel = channel
        self.prefetch_count = prefetch_count or 0
        self._delivered: OrderedDict[int, Message] = OrderedDict()
        self._dirty: set[int] = set()
        self._pid = os.getpid()

    def can_consume(self) -> bool:
        """Whether the channel may be given another message. The only gate there is."""
        return not self.prefetch_count or len(self._delivered) < self.prefetch_count

    def can_consume_max_estimate(self) -> int | None:
        """How many messages the channel may be given; None for any number."""
        if not self.prefetch_count:
            return None
        return max(self.prefetch_count - len(self._delivered), 0)

    def append(self, message: Message, delivery_tag: int) -> None:
        """Remember a delivered message."""
        self._delivered[delivery_tag] = message

    def get(self, delivery_tag: int) -> Message:
        """The unacknowledged message of a tag.

        Raises:
            KeyError: it was acknowledged, rejected or restored.
        """
        return self._delivered[delivery_tag]

    def ack(self, delivery_tag: int) -> None:
        """Acknowledge a message. A tag that is settled already is ignored."""
        message = self._take(delivery_tag)
        if message is not None:
            self._settle(message, message.native.ack)
            self.channel.on_acked()

    def ack_until(self, delivery_tag: int) -> None:
        """Acknowledge a message and all that were delivered before it."""
        for tag in [tag for tag in list(self._delivered) if tag <= delivery_tag]:
            self.ack(tag)

    def reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Put a message back into its queue, or discard it."""
        message = self._take(delivery_tag)
        if message is not None:
            native = message.native
            self._settle(message, native.nack if requeue else lambda: self._bury(native))

    def _bury(self, native: NativeMessage) -> None:
        self.channel.broker.bury(native, native.queue.name, REJECTED)

    def restore_unacked(self) -> list[tuple[BaseException, Message]]:
        """Put everything unacknowledged back, oldest first; returns what could not be."""
        errors: list[tuple[BaseException, Message]] = []
        if self._pid != os.getpid():
            self._delivered.clear()
            return errors
        for tag in list(self._delivered):
            message = self._take(tag)
            if message is None:
                continue
            try:
                self._settle(message, message.native.nack)
            except Exception as exc:  # the others must get their chance
                errors.append((exc, message))
        return errors

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Restore at the end of the channel. A second call finds nothing left."""
        if not self.restore_at_shutdown or not self.channel.do_restore:
            return
        if self._delivered and self._pid == os.getpid():
            logger.info("Restoring %d unacknowledged message(s)", len(self._delivered))
        for exc, message in self.restore_unacked():
            logger.error(
                "Message %s could not be put back: %r. It returns to its queue when this "
                "process ends.",
                message.native.id,
                exc,
            )

    def _take(self, delivery_tag: int) -> Message | None:
        if self._pid != os.getpid():
            return None
        message = self._delivered.pop(delivery_tag, None)
        if message is not None:
            self.channel.on_settled()
        return message

    def _settle(self, message: Message, settle: Callable[[], object]) -> None:
        try:
            settle()
        except NotOwner:
            # Redelivered in the meantime, or its queue was purged: whoever has it now decides.
            logger.warning("Message %s is no longer ours to settle", message.native.id)
        except StoreNotFound:
            logger.warning("The queue of message %s is gone", message.native.id)
