"""What the two stream processors share: how their application is made, and how they are started.

    python -m examples.market.bars --bootstrap HOST:PORT --state DIRECTORY
    python -m examples.market.join --bootstrap HOST:PORT --state DIRECTORY

Each record counts exactly once: what a processor writes, the changes of its state (in changelog topics) and
its offsets are one transaction, every second. One that is killed leaves a transaction open; who comes back
under its name aborts it, and does over what was in it. Who reads committed records sees none of the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from quixstreams import Application
from quixstreams.models import Topic

COMMIT_S = 1.0
POLL_S = 0.1
SESSION_TIMEOUT_MS = 6000


def application(group: str, description: str | None) -> Application:
    """The application of a processor, with the options from its command line."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    options.add_argument("--state", required=True, type=Path, metavar="DIRECTORY", help="where RocksDB is")
    options.add_argument("--member", default=f"{group}-1", help="who in the group; one each (default: -1)")
    arguments = options.parse_args()
    return Application(
        broker_address=arguments.bootstrap,
        consumer_group=group,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        commit_interval=COMMIT_S,
        consumer_poll_timeout=POLL_S,
        state_dir=arguments.state,
        consumer_extra_config={
            # A static member: who comes back under its name has its partitions at once, with no rebalance
            # and without waiting for the session of its former self to end.
            "group.instance.id": arguments.member,
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "fetch.wait.max.ms": 50,
        },
        producer_extra_config={
            "linger.ms": 5,
            # By default a new one at each start, and a transaction that a kill leaves open would stay so for
            # transaction.timeout.ms (a minute), with all that comes after it hidden.
            "transactional.id": arguments.member,
        },
    )


def json_topic(app: Application, name: str) -> Topic:
    """A topic of JSON values with text keys."""
    return app.topic(
        name,
        key_deserializer="str",
        key_serializer="str",
        value_deserializer="json",
        value_serializer="json",
    )
