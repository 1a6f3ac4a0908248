import time

import pytest

from agent.slurm.hostlist import MOST_HOSTS, count_hosts, expand_hosts, natural


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("a,b", ["a", "b"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("gpu[1-2]-ib,login", ["gpu1-ib", "gpu2-ib", "login"]),
        ("r[1-2]c[1-2]", ["r1c1", "r1c2", "r2c1", "r2c2"]),
    ],
)
def test_lists_of_nodes(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts
    assert count_hosts(text) == len(hosts)


@pytest.mark.parametrize(
    "text", ["n[x]", "n[1-]", "n[1-999999999]", "n[0-999]c[0-999]", f"n[1-{MOST_HOSTS}],m[1-2]"]
)
def test_what_is_no_list_or_stands_for_too_many(text: str) -> None:
    with pytest.raises(ValueError, match="nodes"):
        expand_hosts(text)
    assert count_hosts(text) == 0


@pytest.mark.parametrize(
    "text",
    [
        "n[" + ",".join(["1-99999"] * 300) + "]",  # 2.4 kB that once took 20 s and 2 GB
        "n" + "[0-9]" * 1000,
        "n[1" * 20_000 + "]" * 20_000,
        "n[" + "1," * 30_000 + "]",
        "a" * 1000 + "[1-99999]",
    ],
)
def test_a_list_is_counted_before_it_is_made(text: str) -> None:
    begun = time.process_time()
    assert count_hosts(text) == 0
    with pytest.raises(ValueError, match=r"nodes|a name of more than"):
        expand_hosts(text)
    assert time.process_time() - begun < 1.0


def test_hosts_are_sorted_as_people_count() -> None:
    names = ["n10", "n2", "n1", "login", "gpu1-10", "gpu1-9", "007", "²"]
    assert sorted(names, key=natural) == [
        "007",
        "gpu1-9",
        "gpu1-10",
        "login",
        "n1",
        "n2",
        "n10",
        "²",
    ]
