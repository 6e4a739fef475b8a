from linkerd.viz.tap.admission import Admission


def test_a_second_holds_as_many_requests_as_asked_for():
    admission = Admission(10)
    shown = [admission.begins((0, stream), 100.0, congested=False) for stream in range(15)]
    assert (shown.count(True), admission.take_dropped()) == (10, 5)
    assert admission.begins((0, 99), 100.2, congested=False)


def test_a_steady_rate_below_the_bound_loses_nothing():
    admission = Admission(10)
    assert all(admission.begins((0, i), 100 + i / 10, congested=False) for i in range(1000))


def test_a_shown_request_is_shown_to_its_end_and_no_other():
    admission = Admission(1)
    assert admission.begins((0, 1), 5.0, congested=False)
    assert not admission.begins((0, 2), 5.0, congested=False)
    assert admission.continues((0, 1))
    assert not admission.continues((0, 2))
    assert admission.ends((0, 1))
    assert not admission.ends((0, 1))


def test_a_slow_reader_begins_nothing_new():
    admission = Admission(100)
    assert not admission.begins((0, 1), 5.0, congested=True)
    assert admission.take_dropped() == 1
    assert admission.take_dropped() == 0


def test_a_broken_stream_is_forgotten():
    admission = Admission(100)
    admission.begins((0, 1), 5.0, congested=False)
    admission.begins((1, 1), 5.0, congested=False)
    admission.forget(0)
    assert (admission.continues((0, 1)), admission.continues((1, 1))) == (False, True)
