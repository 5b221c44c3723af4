"""A Profile in, its roofline out: FLOP per byte against GFLOP/s as the text of an SVG picture."""

from __future__ import annotations

import html
import math

from aotc.debug.profile import Profile

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 600, 80, 30, 50, 60
_LABELLED = 12


def roofline_svg(profile: Profile, title: str) -> str:
    """Both axes are logarithmic; the roof is the measured peak and bandwidth; a dot's area is the
    kernel's share of the time, and the slowest kernels have their names. Kernels without
    arithmetic have no place in it."""
    shown = [k for k in profile.kernels if k.flop and k.bytes_touched]
    total = sum(k.seconds for k in profile.kernels) or 1.0
    points = [(k.flop / k.bytes_touched, k.flop / k.seconds / 1e9) for k in shown]
    peak, slope = profile.peak_flops / 1e9, profile.bandwidth / 1e9
    ridge = peak / slope
    x_low, x_high = _decades([ridge / 10, ridge * 10, *(x for x, _ in points)])
    y_low, y_high = _decades([peak / 10, peak * 1.2, *(y for _, y in points)])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="28" font-size="16">{html.escape(title)}</text>',
        f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 15}" text-anchor="middle">FLOP per byte</text>',
        f'<text transform="translate(20 {_HEIGHT // 2}) rotate(-90)" '
        'text-anchor="middle">GFLOP/s</text>',
    ]
    for power in range(x_low, x_high + 1):
        (x, bottom), (_, top) = at(10.0**power, 10.0**y_low), at(10.0**power, 10.0**y_high)
        parts.append(_line(x, bottom, x, top, "#ddd"))
        parts.append(_text(x, bottom + 18, f"{10.0**power:g}", "middle"))
    for power in range(y_low, y_high + 1):
        (left, y), (right, _) = at(10.0**x_low, 10.0**power), at(10.0**x_high, 10.0**power)
        parts.append(_line(left, y, right, y, "#ddd"))
        parts.append(_text(left - 6, y + 4, f"{10.0**power:g}", "end"))
    start = max(10.0**x_low, 10.0**y_low / slope)
    corners = [at(start, start * slope), at(ridge, peak), at(10.0**x_high, peak)]
    path = " ".join(f"{x},{y}" for x, y in corners)
    parts.append(f'<polyline points="{path}" fill="none" stroke="#c33" stroke-width="2"/>')
    parts.append(_text(corners[2][0], corners[2][1] - 6, f"{peak:.0f} GFLOP/s", "end"))
    parts.append(_text(corners[0][0] + 8, corners[0][1] - 20, f"{slope:.1f} GB/s", "start"))
    for rank, (kernel, point) in enumerate(zip(shown, points, strict=True)):
        x, y = at(*point)
        share = kernel.seconds / total
        radius = round(3 + 25 * math.sqrt(share), 1)
        name = html.escape(kernel.name)
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="{radius}" fill="#36c" fill-opacity="0.5">'
            f"<title>{name}: {kernel.seconds * 1e6:.1f} us, {share:.1%}</title></circle>"
        )
        if rank < _LABELLED:
            parts.append(_text(x + radius + 2, y + 4, name, "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _decades(values: list[float]) -> tuple[int, int]:
    """The powers of ten below and above all ``values``."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}">{text}</text>'
