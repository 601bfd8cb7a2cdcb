from __future__ import annotations

from itertools import islice

from gateway.runtime.system_clock import id_maker


def test_ids_are_a_process_and_a_count() -> None:
    new_id, other = id_maker(), id_maker()
    ids = list(islice(iter(new_id, ""), 66_000))
    process = ids[0].removesuffix("00000000")
    assert len(process) == 16
    assert ids == [f"{process}{number:08x}" for number in range(66_000)]
    assert not other().startswith(process)
