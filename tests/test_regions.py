"""Memory regions and sizes as text in, values or one clear message out."""

import contextlib

import pytest
from graph_runs import for_all
from hypothesis import strategies as st

from aotc.errors import UsageError
from aotc.regions import Region, read_bytes, read_only, read_regions, writable


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("flash=1M", Region("flash", 1 << 20, True, 4)),
        ("sram=256K", Region("sram", 256 << 10, False, 2)),
        ("dtcm=64k", Region("dtcm", 64 << 10, False, 1)),
        ("SRAM_1=100", Region("SRAM_1", 100, False, 2)),
        ("itcm=16K:ro", Region("itcm", 16 << 10, True, 1)),
        ("ext=8M:ro", Region("ext", 8 << 20, True, 8)),
        ("qspi2=8M", Region("qspi2", 8 << 20, True, 16)),
        ("fast=64K,cost=1", Region("fast", 64 << 10, False, 1)),
        ("slow=64K:ro,cost=70", Region("slow", 64 << 10, True, 70)),
        ("flash=1M:rw,cost=3", Region("flash", 1 << 20, False, 3)),
    ],
)
def test_a_region_is_its_name_size_use_and_speed(text, region):
    assert read_regions([text]) == (region,)


@pytest.mark.parametrize(
    ("texts", "message", "remedy"),
    [
        (["sram"], "no memory region", "sram=256K"),
        (["sram=64K:rx"], "no memory region", "NAME=SIZE"),
        (["9=64K"], "no memory region", "NAME=SIZE"),
        (["a b=64K"], "no memory region", "NAME=SIZE"),
        (["sram=64K,cost=-1"], "no memory region", "NAME=SIZE"),
        (["sram=64G"], "not a number of bytes", "64K"),
        ([f"sram={'9' * 30}"], "not a number of bytes", "64K"),
        (["sram=0"], "cannot have 0 bytes", "from 1 to"),
        (["sram=9999999M"], "cannot have 10485758951424 bytes", "to 1099511627776"),
        (["sram=1K,cost=0"], "cannot have cost 0", "1 or more"),
        (["shiny=64K"], "cannot be told", "shiny=64K,cost=N"),
        (["sram=1K", "dtcm=1K", "SRAM=2K"], "one name in C", "own"),
        (["s_ram=1K,cost=1", "sram=2K"], "one name in C", "own"),
    ],
)
def test_what_is_wrong_is_said(texts, message, remedy):
    with pytest.raises(UsageError, match=message) as caught:
        read_regions(texts)
    assert remedy in str(caught.value)


@for_all(
    st.text("sram_0159KM=:,;rwocost \u0664\n", max_size=24)
    | st.from_regex(r"sram=.*", fullmatch=True),
    quick=30,
    slow=400,
)
def test_any_text_is_a_region_or_a_message(text):
    with contextlib.suppress(UsageError):
        (region,) = read_regions([text])
        assert region.name.isidentifier() and region.name.isascii()
        assert region.size_bytes >= 1 <= region.cost


def test_regions_are_for_constants_or_for_the_workspace():
    regions = read_regions(["flash=1M", "sram=1K", "ext=1M:ro", "dtcm=1K"])
    assert [region.name for region in read_only(regions)] == ["flash", "ext"]
    assert [region.name for region in writable(regions)] == ["sram", "dtcm"]


def test_bytes_come_in_units_of_1024():
    assert [read_bytes(text, "--ram") for text in ("7", "2K", "3m")] == [7, 2048, 3 << 20]
