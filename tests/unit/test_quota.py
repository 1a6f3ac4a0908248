"""What users' programs may tell the agent, and how it is refused when it is too much."""

from agent.quota import MOST_NAMES, POINTS_AT_ONCE, POINTS_PER_SECOND, Quota
from probes.sample import tags


class Watch:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_again_for_each_user_alone() -> None:
    watch = Watch()
    quota = Quota(watch)
    assert quota.allows(1000, int(POINTS_AT_ONCE))
    assert not quota.allows(1000, 1)
    assert quota.allows(1001, 1)
    watch.now += 2 / POINTS_PER_SECOND
    assert quota.allows(1000, 2)
    assert not quota.allows(1000, 1)
    watch.now += 3600
    assert not quota.allows(1000, int(POINTS_AT_ONCE) + 1)
    assert quota.allows(1000, int(POINTS_AT_ONCE))


def test_a_refused_message_costs_nothing_of_the_bucket() -> None:
    quota = Quota(Watch())
    assert not quota.allows(1000, int(POINTS_AT_ONCE) + 1)
    assert quota.allows(1000, int(POINTS_AT_ONCE))


def test_a_job_has_so_many_names_of_phases_and_keeps_those() -> None:
    quota = Quota(Watch())
    assert all(quota.knows("7", tags(phase=str(number))) for number in range(MOST_NAMES))
    assert not quota.knows("7", tags(phase="one more"))
    assert quota.knows("7", tags(phase="0"))
    assert quota.knows("8", tags(phase="one more"))
    quota.forget("7")
    assert quota.knows("7", tags(phase="one more"))
