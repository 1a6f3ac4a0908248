"""Wait for a spool that cannot be used at this moment: a late mount, an agent about to end."""

import logging
import time
from collections.abc import Callable

from agent.notify import Notifier
from agent.segments import SpoolLocked, SpoolUnusable

log = logging.getLogger("rooflight.spool")

BY_HAND_SECONDS = 5.0
"""An agent that ends takes so long at most; a person waits no longer."""

AS_SERVICE_SECONDS = 30.0
"""Then the service ends with an exit code that has systemd start it again."""

PAUSE_SECONDS = 0.2


def when_usable(
    attempt: Callable[[], None], notifier: Notifier, answers: Callable[[], bool]
) -> None:
    """Do what needs the spool, as soon as that goes, and say once what is waited for.

    Args:
        attempt: uses the spool.
        notifier: knows whether this is a service, and tells systemd.
        answers: whether an agent listens on our socket: then the one that has the spool is not
            ending, and a person hears of it at once.

    Raises:
        SpoolUnusable: for too long.

    """
    patience = AS_SERVICE_SECONDS if notifier.is_heard else BY_HAND_SECONDS
    begun = time.monotonic()
    said = False
    while True:
        try:
            return attempt()
        except SpoolUnusable as error:
            runs = isinstance(error, SpoolLocked) and not notifier.is_heard and answers()
            if runs or time.monotonic() - begun >= patience:
                raise
            if not said:
                log.warning("waiting %g s for the spool: %s", patience, error)
                notifier.waiting(str(error), patience)
            said = True
        time.sleep(PAUSE_SECONDS)
