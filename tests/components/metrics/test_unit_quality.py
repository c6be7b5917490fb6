"""Unit quality against scikit-learn's mutual information and counts by hand."""

import math

import pytest
import torch
from sklearn.metrics import mutual_info_score

from components.errors import TesseraError
from components.metrics.unit_quality import unit_quality


def test_information_is_that_of_scikit_learn_and_purities_are_counts():
    generator = torch.Generator().manual_seed(0)
    phones = torch.randint(5, (400,), generator=generator)
    units = (phones + torch.randint(2, (400,), generator=generator)) % 7
    found = unit_quality(phones, units)
    assert found.mutual_information == pytest.approx(mutual_info_score(phones, units) / math.log(2))
    purity = sum(int(phones[units == unit].bincount().max()) for unit in units.unique()) / 400
    assert found.phone_purity == pytest.approx(purity)
    assert found.cluster_purity == pytest.approx(
        sum(int(units[phones == phone].bincount().max()) for phone in phones.unique()) / 400
    )


def test_units_that_name_phones_explain_all_and_one_unit_explains_nothing():
    phones = torch.tensor([0, 1, 2, 2])
    assert unit_quality(phones, 2 - phones).normalised_information == pytest.approx(1)
    assert unit_quality(phones, torch.zeros_like(phones)).mutual_information == pytest.approx(0, abs=1e-12)
    with pytest.raises(TesseraError, match="one of each"):
        unit_quality(phones, phones[:2])
