"""The words of a card about arithmetic are those of the device."""

from components.training.arithmetic import arithmetic


def test_the_cpu_computes_in_float32():
    assert arithmetic("cpu") == "float32 on the CPU"
