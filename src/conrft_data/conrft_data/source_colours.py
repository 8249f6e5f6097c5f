"""One colour for each source of an action, in every picture and viewer; the colour-blind tell them apart as well."""

from __future__ import annotations

from conrft_data.types import ActionSource

# Okabe and Ito, "Color Universal Design".
SOURCE_COLOURS = {ActionSource.HOLD: "#999999", ActionSource.POLICY: "#0072B2", ActionSource.OPERATOR: "#E69F00"}
