"""While much is built that stays nothing is swept, nor is it gone through right after."""

import gc

from routeproxy.gc_pause import paused


def test_the_first_sweep_behind_a_pause_does_not_go_through_what_was_built() -> None:
    gc.unfreeze()
    with paused():
        built = [[number] for number in range(5_000)]
    young, middle, _ = gc.get_count()
    assert gc.isenabled()
    assert (young < 5_000, middle) == (True, 0)
    ids = {id(item) for item in gc.get_objects(generation=2)}
    assert ids.issuperset(map(id, built))


def test_what_others_have_frozen_stays_so() -> None:
    gc.freeze()
    try:
        with paused():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
