"""Prices as they are written: of a model or route, by length of the input, by service tier and by region."""

from __future__ import annotations

from decimal import Decimal

from pydantic import ConfigDict

from gateway.settings.base_section import REQUIRED, BaseSection, setting
from gateway.settings.types import (
    Count,
    DollarsPerMillion,
    DollarsPerMillionCharacters,
    DollarsPerUnit,
    Factor,
    RegionName,
    TierName,
)


class PriceListSettings(BaseSection):
    """Prices, each of which may be left out."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    input: DollarsPerMillion | None = setting(None, "USD per million tokens of input; left out: it is free.")
    output: DollarsPerMillion | None = setting(None, "USD per million tokens of output; left out: it is free.")
    cached_input: DollarsPerMillion | None = setting(
        None, "USD per million tokens of input that the upstream had cached; left out: as `input`."
    )
    cache_write: DollarsPerMillion | None = setting(
        None, "USD per million tokens of input that the upstream cached for five minutes; left out: as `input`."
    )
    cache_write_1h: DollarsPerMillion | None = setting(
        None, "USD per million tokens of input that the upstream cached for an hour; left out: as `input`."
    )
    audio_input: DollarsPerMillion | None = setting(
        None, "USD per million tokens of audio in the input; left out: as `input`."
    )
    audio_output: DollarsPerMillion | None = setting(
        None, "USD per million tokens of audio in the output; left out: as `output`."
    )
    image_input: DollarsPerMillion | None = setting(
        None, "USD per million tokens of images in the input; left out: as `input`."
    )
    image_output: DollarsPerMillion | None = setting(
        None, "USD per million tokens of images in the output; left out: as `output`."
    )
    request: DollarsPerUnit | None = setting(None, "USD per request; left out: it is free.")
    image: DollarsPerUnit | None = setting(None, "USD per image that is made; left out: it is free.")
    search: DollarsPerUnit | None = setting(None, "USD per search of the upstream's; left out: it is free.")
    second: DollarsPerUnit | None = setting(None, "USD per second of audio that is transcribed; left out: it is free.")
    million_characters: DollarsPerMillionCharacters | None = setting(
        None, "USD per million characters that are spoken; left out: they are free."
    )

    @property
    def prices(self) -> dict[str, Decimal]:
        """Those that are written down, by their names."""
        names = PriceListSettings.model_fields
        return {name: usd for name in names if (usd := getattr(self, name)) is not None}


class PriceStepSettings(PriceListSettings):
    model_config = ConfigDict(json_schema_extra={"minProperties": 2})

    tokens: Count = setting(REQUIRED, "The prices hold for requests whose input has more tokens than this.")


class TierPriceSettings(PriceListSettings):
    above: tuple[PriceStepSettings, ...] = setting((), "Other prices of requests with a long input.")


class PriceSettings(TierPriceSettings):
    tiers: dict[TierName, TierPriceSettings] = setting({}, "Other prices of answers that name a service tier.")
    regions: dict[RegionName, Factor] = setting(
        {}, "What the prices of tokens are multiplied by in answers that name a region, as Anthropic's `inference_geo`."
    )
