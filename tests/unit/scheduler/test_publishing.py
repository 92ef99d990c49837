"""What readers are told of commits."""

from tests.unit.scheduler.making import SHARD, START_MS, Lab, chain, report, submit, updates

from nodeflow_scheduler.publishing import Publisher


def test_readers_are_told_of_what_was_committed_and_of_no_turn_that_was_refused() -> None:
    lab, publisher = Lab.ready(), Publisher()
    subscription = publisher.subscribe("e1")
    committed = lab.core.step([submit(chain(1))], START_MS)
    publisher.publish(committed, frozenset())
    refused = lab.core.step([updates(results=[report(0)])], START_MS)
    publisher.publish(refused, frozenset({SHARD}))
    assert [(chunk.first_sequence, chunk.last_sequence) for chunk in subscription.chunks] == [(1, 2)]
    assert publisher.recent("e1", 2) is None
