"""What an evaluation says in words, and which differences it takes for chance."""

import pytest

from vaejax.evaluation.figures import Figure
from vaejax.evaluation.findings import findings
from vaejax.metrics.bootstrap import Estimate


def figure(name, value, floor, spread=0.1, label="Fréchet distance (VGG16)") -> Figure:
    return Figure(
        name, "a table", label, Estimate(value, spread), 100, "", floor=Estimate(floor, spread)
    )


FAULTS = {
    "missing_detail_samples": (40.0, 1.0, "samples are blurred: 40% of the energy"),
    "missing_detail_reconstructions": (40.0, 1.0, "reconstructions are blurred: 40%"),
    "thumbnail_frechet_samples": (90.0, 30.0, "3.0 times that of real faces"),
    "frechet_vgg_samples": (90.0, 30.0, "the Fréchet distance (VGG16) is 3.0 times"),
    "precision_vgg_samples": (0.3, 0.8, "less real: 30% lie among real faces, where 80% of"),
    "coverage_vgg_samples": (0.3, 0.8, "less varied: they come near 30% of the real faces"),
    "copies_vgg_samples": (60.0, 1.0, "copied: 60% are closer to a training face"),
    "repeats_vgg_samples": (60.0, 1.0, "repeated: 60% have another one so close"),
    "faces_found_samples": (70.0, 99.0, "a face is found in 70%"),
    "landmark_distance_samples": (9.0, 1.0, "do not lie as in real faces"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_sentence(name):
    value, floor, words = FAULTS[name]
    (sentence,) = findings([figure(name, value, floor, spread=0.01)])
    assert words in sentence


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_at_its_floor_is_no_fault(name):
    _, floor, _ = FAULTS[name]
    assert findings([figure(name, floor, floor, spread=0.01)]) == []


@pytest.mark.parametrize("name", FAULTS)
def test_what_may_be_chance_is_no_fault(name):
    value, floor, _ = FAULTS[name]
    assert findings([figure(name, value, floor, spread=abs(value - floor))]) == []


def test_too_much_detail_is_called_so():
    (sentence,) = findings([figure("missing_detail_samples", -30.0, 0.0)])
    assert "too much fine detail: 30% more energy" in sentence


def test_other_sets_and_figures_without_a_floor_are_left_out():
    alone = figure("missing_detail_samples", 40.0, 0.0)._replace(floor=None)
    assert findings([alone, figure("frechet_vgg_interpolations", 90.0, 30.0)]) == []
