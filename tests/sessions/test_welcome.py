"""A kernel welcomes every subscription: a start waits for that, and without it hangs."""

from __future__ import annotations

import asyncio
import random

import pytest
import zmq
import zmq.asyncio

from tests.conftest import RUN_TIMEOUT_S, Sessions

pytestmark = pytest.mark.anyio

SUBSCRIPTIONS = 60
BURST_S = 0.02


async def test_a_subscription_while_the_kernel_sends_is_welcomed(sessions: Sessions) -> None:
    """Subscriptions arrive between the sends of a burst, after which the kernel is silent; none is missed."""
    chance = random.Random(1)
    await sessions.run(f"import time\nuntil = lambda: time.monotonic() + {BURST_S}")
    kernel = sessions.manager.loaded()["s"].slot.kernel
    assert kernel is not None
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(f"ipc://{kernel.process.directory / 's-2'}")
        for number in range(SUBSCRIPTIONS):
            _, job = await sessions.submit("end = until()\nwhile time.monotonic() < end: print('x', flush=True)")
            # Not a wait for anything: where in the burst the subscription arrives is what is tried here.
            await asyncio.sleep(chance.uniform(0, BURST_S))
            # A topic of its own each time: a kernel hears of a topic when the first one subscribes to it.
            topic = f"topic-{number:03}".encode()
            subscriber.subscribe(topic)
            frames = await asyncio.wait_for(subscriber.recv_multipart(), RUN_TIMEOUT_S)
            assert frames[0] == topic
            await asyncio.wait_for(asyncio.shield(job.result), RUN_TIMEOUT_S)
