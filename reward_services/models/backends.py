"""The choice of what runs a vision-language model. Neither backend needs the other's packages."""

from reward_services.models.vision_language import VisionLanguageModel, VisionLanguageOptions
from reward_services.options import SetupError


def open_model(options: VisionLanguageOptions) -> VisionLanguageModel:
    """The model that `options` name.

    Raises:
        SetupError: it cannot be had, or the options do not fit together.
    """
    if options.prompt_template and "{question}" not in options.prompt_template:
        raise SetupError("prompt_template does not hold {question}")
    if options.backend == "openai":
        from reward_services.models.openai_vlm import OpenAiModel

        return OpenAiModel(options)
    if options.base_url is not None:
        raise SetupError("base_url is only used with backend=openai: set that too")
    from reward_services.models.llava import LlavaModel

    return LlavaModel(options)
