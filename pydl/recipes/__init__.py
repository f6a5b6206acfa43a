"""Results that anybody can repeat, a file each: data, a network, its training, what it is held to,
and a page that shows it. ``pydl run`` lists them, ``pydl run NAME`` does one."""

from pydl.recipes.actions import RECIPE as ACTIONS
from pydl.recipes.caption_clips import RECIPE as CAPTION_CLIPS
from pydl.recipes.caption_regions import RECIPE as CAPTION_REGIONS
from pydl.recipes.caption_scenes import RECIPE as CAPTION_SCENES
from pydl.recipes.char_lm import RECIPE as CHAR_LM
from pydl.recipes.classifiers import RECIPE as CLASSIFIERS
from pydl.recipes.demo import RECIPE as DEMO
from pydl.recipes.depth import RECIPE as DEPTH
from pydl.recipes.digits import RECIPE as DIGITS
from pydl.recipes.features import RECIPE as FEATURES
from pydl.recipes.forecast_elnino import RECIPE as FORECAST_ELNINO
from pydl.recipes.gradients import RECIPE as GRADIENTS
from pydl.recipes.hear_pitch import RECIPE as HEAR_PITCH
from pydl.recipes.multi_crop import RECIPE as MULTI_CROP
from pydl.recipes.name_languages import RECIPE as NAME_LANGUAGES
from pydl.recipes.read_digits import RECIPE as READ_DIGITS
from pydl.recipes.read_lines import RECIPE as READ_LINES
from pydl.recipes.recipe import Options, Recipe
from pydl.recipes.restore_mri import RECIPE as RESTORE_MRI
from pydl.recipes.segment_folder import RECIPE as SEGMENT_FOLDER
from pydl.recipes.segment_scenes import RECIPE as SEGMENT_SCENES
from pydl.recipes.transfer import RECIPE as TRANSFER
from pydl.recipes.translate_numbers import RECIPE as TRANSLATE_NUMBERS
from pydl.recipes.word_lm import RECIPE as WORD_LM

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(DIGITS, DEMO, CHAR_LM, GRADIENTS, DEPTH, FEATURES, MULTI_CROP, TRANSFER, CLASSIFIERS),
        *(SEGMENT_SCENES, SEGMENT_FOLDER, ACTIONS, RESTORE_MRI),
        *(TRANSLATE_NUMBERS, FORECAST_ELNINO, READ_DIGITS, READ_LINES),
        *(CAPTION_SCENES, CAPTION_REGIONS, CAPTION_CLIPS),
        *(NAME_LANGUAGES, WORD_LM, HEAR_PITCH),
    )
}


def find(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


__all__ = ["RECIPES", "Options", "Recipe", "find"]
