"""What every section of a configuration is: frozen, strict about keys; and types of its fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]


class Section(BaseModel):
    """Base of the sections: frozen, strict about keys, field docstrings as descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )
